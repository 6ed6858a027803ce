"""A call with a limit of time: what it returns, raises, and that a hanging one is abandoned."""

import threading
import time

import pytest

from m3col.runtime.deadline import within


def test_what_a_call_returns_or_raises_is_handed_on():
    assert within(5, lambda: None) is None and within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 / 0)


def test_a_call_that_hangs_is_abandoned():
    release, before = threading.Event(), time.monotonic()
    with pytest.raises(TimeoutError, match="no answer within"):
        within(0.2, lambda: release.wait(30))
    assert time.monotonic() - before < 10
    release.set()
