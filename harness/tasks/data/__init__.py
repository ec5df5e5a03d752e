"""Stored rows as tasks: R1-V's data sets and users' own, read lazily and checked row by row. Imports no torch."""
