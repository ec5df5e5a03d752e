"""Answers: run folders to one tidy frame, tables and intervals. Reads only run folders; imports no torch."""
