"""Data checks: faults, which prevent the use of the data, and warnings."""
