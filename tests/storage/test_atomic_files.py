"""A file is replaced as a whole or not at all, and is on the disk before it has its name."""

import os

import pytest

from m3col.errors import reason_of
from m3col.storage import atomic_files


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    atomic_files.write_text(path, "old")
    with pytest.raises(OSError, match="disk full"), atomic_files.replaced(path) as part:
        part.write_text("half")
        assert part.parent == tmp_path and path.read_text() == "old"
        raise OSError("disk full")
    assert [item.name for item in tmp_path.iterdir()] == ["table.csv"] and path.read_text() == "old"


def test_the_content_is_flushed_before_the_file_is_renamed(tmp_path, monkeypatch):
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("flush"), fsync(descriptor))[1])
    monkeypatch.setattr(os, "replace", lambda source, target: (order.append("rename"), replace(source, target))[1])
    with atomic_files.replaced(tmp_path / "x") as part:
        part.write_bytes(b"abc")
    assert order == ["flush", "rename"] and (tmp_path / "x").read_bytes() == b"abc"


def test_an_error_in_one_line_names_its_type_where_it_has_no_message():
    assert reason_of(OSError("no space\n   left")) == "no space left"
    assert reason_of(KeyError()) == "KeyError" and reason_of(ValueError("x" * 300), limit=10) == "x" * 10
    assert "hidden" not in reason_of(OSError("s3://key:hidden@bucket"))
