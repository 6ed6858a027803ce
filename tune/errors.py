"""Errors of a search that callers may want to catch."""


class SearchFailed(RuntimeError):
    """A search that ended without a single finished trial; the message says why, and which value to change."""


class NoCapacity(RuntimeError):
    """The cluster has lost so many nodes that nothing fits any more."""


class StudyTakenOver(RuntimeError):
    """Another driver went on with the study, because this one had not been heard of for too long."""
