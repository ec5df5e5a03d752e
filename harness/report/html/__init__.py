"""A sweep's report: one HTML file that opens from disk, asks no network for anything, and prints as a PDF.

:mod:`harness.report.html.contents` gathers what goes in, :mod:`harness.report.html.page` makes the file of it, and
:mod:`harness.report.html.write` writes both forms. Everything that a model wrote reaches the page as data, never as
markup, and the page's own policy lets no other script than its own run.
"""
