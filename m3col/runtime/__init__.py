"""What surrounds a run: warnings to the user, work left for the end of the process, the user's home folder."""
