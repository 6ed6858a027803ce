"""Cache of decoded images and tokens: equal to uncached data, written once, and invalid after a file changes."""

import contextlib
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m3col.data.columns import MediaColumn, join
from m3col.data.dataset import build_split
from m3col.data.images import cache, decoding, index
from m3col.errors import InputError
from m3col.storage import atomic_files


def paint(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> str:
    noise = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return str(path)


@pytest.fixture
def records(tmp_path: Path) -> MediaColumn:
    return MediaColumn.of("image", [paint(tmp_path / f"{n}.png", n, (40 + n, 30)) for n in range(7)])


def encode(texts):
    return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts]


def test_images_are_the_same_with_and_without_the_cache(records):
    kept, made = cache.decoded(records, 16), cache.decoded(records, 16, cached=False)
    for row, path in enumerate(records.source):
        expected = decoding.decode(path, 16)
        assert np.array_equal(kept[row], expected) and np.array_equal(made[row], expected)
        assert min(expected.shape[:2]) == 16


def test_texts_are_the_same_with_and_without_the_cache():
    records = MediaColumn.of("text", [f"text {n}" * n for n in range(1, 600)])
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
    for remembered in (index._known, {}):  # in this process, and in another one that has the folder only
        monkeypatch.setattr(index, "_known", dict(remembered))
        monkeypatch.setattr(decoding, "decode", lambda *a: pytest.fail("decoded again"))
        monkeypatch.setattr(decoding, "measure", lambda *a: pytest.fail("looked at again"))
        assert cache.decoded(records, 16)[0].shape[2] == 3
        assert cache.faults(records) == {}


def test_images_are_looked_at_once_for_each_table(records, monkeypatch):
    calls = []
    look = index.inspect
    monkeypatch.setattr(index, "inspect", lambda *a, **k: (calls.append(1), look(*a, **k))[1])
    cache.decoded(records, 16)
    assert len(calls) == 1


def colour(path: Path, red: int) -> None:
    """An image whose file size does not depend on its color."""
    Image.new("RGB", (20, 20), (red, 90, 90)).save(path)


def test_a_image_that_changed_is_seen_though_its_size_and_time_did_not(tmp_path):
    path = tmp_path / "a.bmp"
    colour(path, 250)
    records, status = MediaColumn.of("image", [str(path)]), os.stat(path)
    digests, before = cache.content_digests(records), cache.decoded(records, 16)[0][0, 0, 0]
    colour(path, 10)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (os.stat(path).st_size, os.stat(path).st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert (before, cache.decoded(records, 16)[0][0, 0, 0], cache.decoded(records, 24)[0][0, 0, 0]) == (250, 10, 10)
    assert cache.content_digests(records) != digests
    colour(path, 250)
    assert cache.decoded(records, 24)[0][0, 0, 0] == 250 and cache.content_digests(records) == digests


def test_a_table_never_holds_other_pixels_than_its_key_says(tmp_path, monkeypatch):
    path = tmp_path / "a.bmp"
    colour(path, 250)
    records = MediaColumn.of("image", [str(path)])
    with monkeypatch.context() as patch:
        patch.setattr(index, "_stamp", lambda file: "a clock that stands still")
        cache.decoded(records, 16)
        colour(path, 10)
        assert cache.decoded(records, 24)[0][0, 0, 0] == 10  # it is not what was looked at: begun once more
    colour(path, 250)
    assert cache.decoded(records, 24)[0][0, 0, 0] == 250


def test_a_image_that_changes_all_the_time_is_refused(records, own_folder, monkeypatch):
    monkeypatch.setattr(index, "inspect", lambda values, reread=(): [index.ImageInfo("0" * 64, (9, 9))] * len(values))
    with pytest.raises(InputError, match=r"0\.png: is written to while it is read"):
        cache.decoded(records, 16)
    assert not list(own_folder.glob("image-*.arrow")) and not list(own_folder.glob("*.part"))


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [(decoding, "RULES", decoding.RULES + 1), (decoding, "kinds", lambda: ("PNG",)), (index.PIL, "__version__", "99")],
    ids=["rules", "formats", "version"],
)
def test_a_verdict_holds_as_long_as_the_rules_and_pillow_do(records, tmp_path, monkeypatch, place, name, value):
    (tmp_path / "3.png").write_text("<html>")
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "measure", lambda content: (8, 8))
        assert cache.faults(records) == {}
    index._known.clear()
    assert cache.faults(records) == {}
    index._known.clear()
    monkeypatch.setattr(place, name, value)
    assert set(cache.faults(records)) == {3}


def test_a_pipe_and_a_folder_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")

    def let_go() -> None:
        with contextlib.suppress(OSError):  # nobody reads
            os.close(os.open(tmp_path / "pipe.png", os.O_WRONLY | os.O_NONBLOCK))

    timer = threading.Timer(10, let_go)
    timer.start()
    fault_of_row = cache.faults(MediaColumn.of("image", [str(tmp_path / "pipe.png"), str(tmp_path)]))
    timer.cancel()
    assert fault_of_row == {0: "is not a file", 1: "is not a file"}


def test_paths_that_no_file_can_have_are_missing():
    assert set(cache.faults(MediaColumn.of("image", ["a\0b.png", "half \ud800.png"])).values()) == {
        "is not a valid path"
    }


def test_a_digest_does_not_depend_on_the_place(records, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    moved = [str(Path(path).rename(tmp_path / "elsewhere" / Path(path).name)) for path in records.source]
    labels = np.zeros(7, np.int64)
    ids = np.array([str(n) for n in range(7)])
    there = build_split({"image": MediaColumn.of("image", moved)}, labels, "train", ids=ids).digest()
    for path in moved:
        Path(path).rename(tmp_path / Path(path).name)
    assert build_split({"image": records}, labels, "train", ids=ids).digest() == there


def test_broken_images_are_named_all_at_once(records, tmp_path):
    (tmp_path / "3.png").write_text("<html>")
    (tmp_path / "5.png").write_bytes(b"")
    assert set(cache.faults(records)) == {3, 5}
    with pytest.raises(InputError) as caught:
        cache.decoded(records, 16)
    assert len(caught.value.faults) == 2 and "3.png" in caught.value.faults[0]


def test_a_folder_that_cannot_be_written_is_told(records, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("M3COL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="M3COL_CACHE"):
        cache.decoded(records, 16)


@pytest.mark.parametrize("kept", [0, 8, 0.5, 0.99])
def test_a_torn_file_is_made_anew(records, own_folder, kept):
    expected = np.array(cache.decoded(records, 16)[3])
    (path,) = own_folder.glob("image-*.arrow")
    os.truncate(path, int(kept if kept in (0, 8) else kept * path.stat().st_size))
    for _ in range(2):
        assert np.array_equal(cache.decoded(records, 16)[3], expected)
    path.write_bytes(b"nonsense" * 1000)
    assert np.array_equal(cache.decoded(records, 16)[3], expected)


def test_a_file_is_on_the_disk_before_it_gets_its_name(records, own_folder, monkeypatch):
    done = []
    monkeypatch.setattr(atomic_files, "flush", lambda path: done.append(path.suffix or path.name))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *a: (done.append("named"), replace(*a)))
    cache.decoded(records, 16)
    assert done == [".part", "named", own_folder.name]


def test_a_table_that_is_there_needs_no_folder_that_can_be_written(records, own_folder, monkeypatch):
    cache.decoded(records, 16)
    monkeypatch.setattr(cache.filelock, "FileLock", lambda *a: pytest.fail("locked"))
    assert cache.needed_bytes(records, 16) == 0 and cache.decoded(records, 16)[0].shape[2] == 3
    assert cache.needed_bytes(records, 24) == 3 * 24**2 * 7


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(records, own_folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage(9000, 4000, 5000))
    with pytest.raises(InputError, match="the cache needs about 0 MB, but only 0 MB are free; free some, name another"):
        cache.decoded(records, 16)
    assert not list(own_folder.glob("image-*"))[1:]  # the lock


def test_what_a_killed_writer_has_left_is_no_reason_to_refuse_the_next_one(records, own_folder, monkeypatch):
    whole = 3 * 24**2 * 7
    own_folder.mkdir(exist_ok=True)
    part = cache._part(cache._images_path(cache.content_digests(records), 24))
    part.write_bytes(bytes(whole - 100))
    assert cache.needed_bytes(records, 24) == 100
    usage = namedtuple("usage", "total used free")
    room = 2 * whole  # for the table and what is left of the killed one, if that stays
    monkeypatch.setattr(
        cache.shutil, "disk_usage", lambda path: usage(0, 0, room - sum(p.stat().st_size for p in path.glob("*.part")))
    )
    assert cache.decoded(records, 24)[0].shape[2] == 3 and not part.exists()


def test_what_ran_out_of_memory_is_told_and_not_remembered(records, monkeypatch):
    def load(*args: object, **named: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(decoding.Image, "open", load)
        assert set(cache.faults(records).values()) == {"cannot be decoded (out of memory)"}
    index._known.clear()
    assert cache.faults(records) == {}


def test_records_that_are_neither_image_nor_text_are_told():
    assert cache.faults(MediaColumn.of("image", [None])) == {
        0: "must be one of the paths or contents (bytes) of images, but is None"
    }
    assert cache.faults(MediaColumn.of("text", ["good", " ", "half \ud800", 3])) == {
        1: "is an empty text", 2: "holds half a surrogate pair", 3: "must be one of the texts, but is 3"
    }  # fmt: skip


def test_a_user_without_a_home_has_a_folder_too(monkeypatch):
    for name in ("M3COL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(index.Path, "home", home)
    assert index.folder().parent.is_dir()


_FULL = """
import resource, sys
from pathlib import Path
from m3col.data.images import cache
from m3col.data.columns import MediaColumn
from m3col.errors import InputError
records = MediaColumn.of("image", sys.argv[1:])
cache.faults(records)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, -1))
try:
    cache.decoded(records, 64)
except InputError as error:
    print(error)
"""


def test_a_disk_that_fills_up_leaves_nothing_behind(records, own_folder):
    done = subprocess.run(
        [sys.executable, "-c", _FULL, *records.source], capture_output=True, text=True, check=True, timeout=120
    )  # fmt: skip
    assert "cannot be written" in done.stdout and "M3COL_CACHE" in done.stdout and done.stdout.count("\n") == 1
    assert {path.suffix for path in own_folder.iterdir()} == {".db", ".lock"}


def test_members_of_one_prediction_share_what_is_decoded(records, monkeypatch):
    decoded = []
    decode = decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda *a: (decoded.append(a), decode(*a))[1])
    kept = cache.keep(records)
    for _ in range(3):
        table = cache.decoded(kept, 16, cached=False)
        assert all(table[row].shape[2] == 3 for row in range(7))
    assert len(decoded) == 7
    cache.decoded(kept, 24, cached=False)[0]
    cache.decoded(records, 16, cached=False)[0]  # of another use, nothing is kept
    cache.decoded(records, 16, cached=False)[0]
    assert len(decoded) == 10
    before = len(cache._shared)
    del kept, table
    assert len(cache._shared) == before - 1
    monkeypatch.setattr(cache, "_SHARED_BYTES", 2 * decode(records.source[0], 16).nbytes + 100)
    kept, count = cache.keep(records), len(decoded)
    for _ in range(2):
        table = cache.decoded(kept, 16, cached=False)
        assert all(table[row].shape[2] == 3 for row in range(7))
    assert len(decoded) == count + 7 + 5  # there was room for two


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


def test_a_image_that_breaks_later_is_named(records, tmp_path):
    table = cache.decoded(records, 16, cached=False)
    (tmp_path / "3.png").write_text("<html>")
    with pytest.raises(RuntimeError, match=r"3\.png: is an HTML page"):
        table[3]


def _make(folder: str, values: list[str], barrier: "multiprocessing.synchronize.Barrier", queue) -> None:
    os.environ["M3COL_CACHE"] = folder
    written = []
    original = cache._write
    cache._write = lambda *a: (written.append(1), original(*a))
    barrier.wait()
    table = cache.decoded(MediaColumn.of("image", values), 16)
    queue.put((len(written), table[3].tobytes()))


def test_of_several_processes_one_writes_and_all_read_the_same(records, own_folder):
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(3), context.Queue()
    workers = [
        context.Process(target=_make, args=(str(own_folder), list(records.source), barrier, queue)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(30)
    assert sum(count for count, _ in results) == 1
    assert len({content for _, content in results}) == 1


def test_a_table_travels_as_its_path(records):
    table = cache.decoded(records, 16)
    sent = pickle.dumps(table)
    assert len(sent) < 1000 and np.array_equal(pickle.loads(sent)[4], table[4])
