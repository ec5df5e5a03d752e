"""Figures of a sweep: each drawn from a table of numbers, which is written beside it as CSV.

A figure never shows what stands in no run folder: a value with missing runs is left out and the footnote says so. A
module makes its numbers with one function and draws them with another; :mod:`harness.report.figures.write` does both.
"""
