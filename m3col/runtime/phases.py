"""Tells the logger `m3col.phases` when each phase of a command ended, for those who look for its seconds."""

import logging

_LOGGER = logging.getLogger("m3col.phases")


def ended(phase: str) -> None:
    """Logs, at level DEBUG, that a phase has ended."""
    _LOGGER.debug(phase)
