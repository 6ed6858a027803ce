"""Sequences of steps: the column of a data set, values from Python, files."""
