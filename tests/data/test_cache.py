"""Decoded pictures and tokens: the same with and without the cache, made once, and never trusted after a change."""

import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m3col.data import cache, pictures
from m3col.data.columns import Records, join
from m3col.data.dataset import build_split
from m3col.faults import BadInput


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("M3COL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def paint(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> str:
    noise = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return str(path)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records.of("image", [paint(tmp_path / f"{n}.png", n, (40 + n, 30)) for n in range(7)])


def encode(texts):
    return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts]


def test_pictures_are_the_same_with_and_without_the_cache(records):
    kept, made = cache.decoded(records, 16), cache.decoded(records, 16, cached=False)
    for row, path in enumerate(records.source):
        expected = pictures.decode(path, 16)
        assert np.array_equal(kept[row], expected) and np.array_equal(made[row], expected)
        assert min(expected.shape[:2]) == 16


def test_texts_are_the_same_with_and_without_the_cache():
    records = Records.of("text", [f"text {n}" * n for n in range(1, 600)])
    kept = cache.encoded(records, encode, settings="bytes")
    made = cache.encoded(records, encode, settings="bytes", cached=False)
    assert all(np.array_equal(kept[row], made[row]) for row in range(len(records)))
    assert np.array_equal(kept.lengths(), made.lengths())


def test_parts_of_a_data_set_share_one_file(records, own_folder):
    cache.decoded(records[:3], 16)
    cache.decoded(records[np.array([6, 2])], 16)
    cache.decoded(join(records[:2], records[4:]), 16)
    assert len(list(own_folder.glob("image-*.arrow"))) == 1
    cache.decoded(records, 24)
    assert len(list(own_folder.glob("image-*.arrow"))) == 2


def test_a_second_look_decodes_nothing(records, monkeypatch):
    cache.decoded(records, 16)
    monkeypatch.setattr(pictures, "decode", lambda *a: pytest.fail("decoded again"))
    assert cache.decoded(records, 16)[0].shape[2] == 3
    assert cache.faults(records) == {}


def test_a_picture_that_changed_is_seen(records, tmp_path):
    before = np.array(cache.decoded(records, 16)[2])
    digests = cache.content_digests(records)
    status = os.stat(records.source[2])
    paint(tmp_path / "2.png", 99, (42, 30))
    os.utime(records.source[2], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert not np.array_equal(cache.decoded(records, 16)[2], before)
    changed = [a != b for a, b in zip(digests, cache.content_digests(records), strict=True)]
    assert changed == [n == 2 for n in range(7)]


def test_a_digest_does_not_depend_on_the_place(records, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    moved = [str(Path(path).rename(tmp_path / "elsewhere" / Path(path).name)) for path in records.source]
    labels = np.zeros(7, np.int64)
    ids = np.array([str(n) for n in range(7)])
    there = build_split({"image": Records.of("image", moved)}, labels, "train", ids=ids).digest()
    for path in moved:
        Path(path).rename(tmp_path / Path(path).name)
    assert build_split({"image": records}, labels, "train", ids=ids).digest() == there


def test_broken_pictures_are_named_all_at_once(records, tmp_path):
    (tmp_path / "3.png").write_text("<html>")
    (tmp_path / "5.png").write_bytes(b"")
    assert set(cache.faults(records)) == {3, 5}
    with pytest.raises(BadInput) as caught:
        cache.decoded(records, 16)
    assert len(caught.value.faults) == 2 and "3.png" in caught.value.faults[0]


def test_a_folder_that_cannot_be_written_is_told(records, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("M3COL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(BadInput, match="M3COL_CACHE"):
        cache.decoded(records, 16)


def test_a_file_that_was_cut_off_while_it_was_written_is_not_taken(records, own_folder, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(Killed):
            cache.decoded(records, 16)
    assert not list(own_folder.glob("image-*.arrow"))
    assert cache.decoded(records, 16)[0].shape[2] == 3


def _make(folder: str, values: list[str], barrier: "multiprocessing.synchronize.Barrier", found) -> None:
    os.environ["M3COL_CACHE"] = folder
    written = []
    original = cache._write
    cache._write = lambda *a: (written.append(1), original(*a))
    barrier.wait()
    table = cache.decoded(Records.of("image", values), 16)
    found.put((len(written), table[3].tobytes()))


def test_of_several_processes_one_writes_and_all_read_the_same(records, own_folder):
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(3), context.Queue()
    workers = [
        context.Process(target=_make, args=(str(own_folder), list(records.source), barrier, found)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    results = [found.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(30)
    assert sum(count for count, _ in results) == 1
    assert len({content for _, content in results}) == 1


def test_a_table_travels_as_its_path(records):
    table = cache.decoded(records, 16)
    sent = pickle.dumps(table)
    assert len(sent) < 1000 and np.array_equal(pickle.loads(sent)[4], table[4])
