"""Errors of a search that callers may want to catch."""


class SearchFailed(RuntimeError):
    """No trial of a search finished. The message says why, and which value to change."""


class NoCapacity(RuntimeError):
    """The cluster has lost so many nodes that not a single trial fits any more."""


class StudyTakenOver(RuntimeError):
    """Another driver has taken over the study, because this one sent no heartbeat for too long."""
