"""Strict models: every fault once, with key, rule, value and the nearest valid one."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from m3col.config.keys import Strict, flatten, get, keys, touches, with_value, without, without_keys
from m3col.config.validation import Fault, lines, places, validate


class Inner(Strict):
    count: Annotated[int, Field(ge=1)] = 1
    rate: Annotated[float, Field(gt=0)] = 0.1
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    kind: Literal["none", "step"] = "none"
    weight: Literal["none", "balanced"] | list[Annotated[float, Field(ge=0)]] = "none"
    names: list[str | int] | None = None
    on: bool = True


class Outer(Strict):
    inner: Inner = Inner()
    rows: dict[str, dict[str, Any]] = Field(default={})


def fault(**inner: Any) -> str:
    config, faults = validate(Outer, {"inner": inner})
    assert config is None and len(faults) == 1, faults
    return faults[0].text


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("inner", "text"),
    [
        ({"count": 0}, "inner.count must be >= 1, but got 0; the nearest valid value is 1"),
        ({"count": 2.6}, "inner.count must be a whole number, but got 2.6; the nearest valid value is 3"),
        ({"count": "3"}, "inner.count must be a whole number, but got '3'; write 3 without quotes"),
        ({"count": True}, "inner.count must be a whole number, but got True"),
        ({"count": None}, "inner.count must be a whole number, but got None"),
        ({"rate": 0}, "inner.rate must be > 0, but got 0"),
        ({"rate": NAN}, "inner.rate must be a finite number, but got NaN"),
        ({"rate": -INF}, "inner.rate must be a finite number, but got -inf"),
        ({"rate": True}, "inner.rate must be a number, but got True"),
        ({"rate": "0.1"}, "inner.rate must be a number, but got '0.1'; write 0.1 without quotes"),
        ({"rate": "nan"}, "inner.rate must be a number, but got 'nan'"),
        ({"share": 1.5}, "inner.share must be <= 1, but got 1.5; the nearest valid value is 1"),
        ({"seed": 2**31}, f"inner.seed must be < 2147483648, but got {2**31}; the nearest valid value is 2147483647"),
        ({"kind": "stepp"}, "inner.kind must be one of none, step, but got 'stepp'; did you mean 'step'?"),
        ({"kind": 3}, "inner.kind must be one of none, step, but got 3"),
        ({"on": "yes"}, "inner.on must be true or false, but got 'yes'"),
        ({"weight": "foo"}, "inner.weight must be one of none, balanced or a list, but got 'foo'"),
        ({"weight": [1.0, -1.0]}, "inner.weight[1] must be >= 0, but got -1.0; the nearest valid value is 0"),
        ({"names": ["a", None]}, "inner.names[1] must be text or a whole number, but got None"),
        ({"names": "a"}, "inner.names must be a list, but got 'a'"),
        ({"coun": 3}, "unknown key 'inner.coun'; did you mean 'inner.count'?"),
        ({3: 1}, "inner.3: a key must be text; put it in quotes"),
    ],
)
def test_the_line_says_rule_value_and_nearest(inner, text):
    config, faults = validate(Outer, {"inner": inner})
    assert config is None and [fault.text for fault in faults] == [text]


def test_all_faults_of_all_sections_are_told_at_once():
    raw = {"inner": {"count": 0, "rate": -1, "xyz": 1}, "rows": {"a": 3}, "rowss": 1, "count": 3, "inner.count": 3}
    config, faults = validate(Outer, raw)
    assert config is None
    assert {fault.path for fault in faults} == {"inner.count", "inner.rate", "inner.xyz", "rows.a", "rowss", "count"}
    text = {fault.text for fault in faults}
    assert "unknown key 'count'; did you mean 'inner.count'?" in text
    assert "unknown key 'inner.count'; write 'count' below a line 'inner:'" in text
    assert "rows.a must be a mapping, but got 3" in text


@pytest.mark.parametrize("value", [3, "text", [1], None, True])
def test_a_section_that_is_none_is_one_fault(value):
    _, (found,) = validate(Outer, {"inner": value})
    assert found.path == "inner" and found.text.startswith("inner must be a section with keys of its own")


def test_long_values_are_cut():
    _, (found,) = validate(Outer, {"inner": {"on": "x" * 500}})
    assert len(found.text) < 150 and found.text.endswith("...")


def test_a_prefix_and_a_place_stand_in_front():
    _, faults = validate(Outer, {"inner": {"count": 0, "raet": 1}}, prefix="run.")
    place = places("x.yaml", ("first", {"inner.count": 0}), ("second", {"inner.count": 1, "inner.raet.z": 0}))
    found = lines(faults, place)
    assert any(line.startswith("second: run.inner.count must be") for line in found)
    assert any(line.startswith("x.yaml: unknown key 'run.inner.raet'") for line in found)
    assert lines([Fault("", "a"), Fault("", "a")], "x") == ["x: a"]


def test_mappings_by_dotted_key():
    raw = {"a": {"b": 1, "c": {"d": 2}}, "e": {}}
    assert list(flatten(raw)) == [("a.b", 1), ("a.c.d", 2), ("e", {})]
    assert get(raw, "a.c.d") == 2 and get(raw, "a.b.x", 7) == 7 and get(raw, "z") is None
    assert with_value(raw, "a.c.x", 3)["a"] == {"b": 1, "c": {"d": 2, "x": 3}} and raw["a"]["c"] == {"d": 2}
    assert with_value(raw, "a.b.x", 3)["a"]["b"] == {"x": 3}
    assert without_keys(raw, frozenset({"a.c.d", "e"})) == {"a": {"b": 1}}
    assert without(raw, {"a.c"}) == {"a": {"b": 1}, "e": {}}
    assert without(raw, {"a.c.d", "e"}) == {"a": {"b": 1, "c": {}}} and without(raw, {"a"}) == {"e": {}}
    assert keys(Outer)[:3] == ["inner", "inner.count", "inner.rate"]


def test_touches_looks_inside_and_around():
    assert touches({"data"}, "data.name") and touches({"data.name"}, "data") and touches({"a", "b"}, "c", "b")
    assert not touches({"data.name"}, "data.nam") and not touches({"dat"}, "data") and not touches((), "a")
