"""Procedural geometry diagrams: a figure with coloured marks, and the rule that the figure decides."""
