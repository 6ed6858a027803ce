"""Process-level helpers: warnings to the user, hooks before exit, time limits, lazy imports, the home folder."""
