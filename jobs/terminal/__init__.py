"""The terminal: progress, tables, signals, streams of any encoding."""
