"""Checks of data: what is refused, and what is warned about."""
