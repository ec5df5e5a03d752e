"""Copies of a run folder for dashboards: W&B and TensorBoard. The folder is the record; nothing is read back.

A copy is made from the folder alone, step by step, whether it follows a run as it goes or is made afterwards; so what
arrives does not depend on how often a run was resumed.
"""
