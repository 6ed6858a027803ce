"""Schedules the runs of a study, prunes trials and selects the winner."""
