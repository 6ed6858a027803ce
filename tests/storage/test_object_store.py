"""A storage on a real S3 server and on a path: the same words, the same answers."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from m3col.storage import object_store
from m3col.storage.object_store import Folder, Scratch, uri_faults
from m3col.storage.retry import RetryPolicy, StorageUnavailable
from tests.support.servers import S3


@pytest.fixture(params=["s3", "path"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(request.getfixturevalue("s3") if request.param == "s3" else str(tmp_path / "store"))


def local(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_what_is_put_comes_back(place: Folder, tmp_path: Path) -> None:
    source = local(tmp_path / "a", marker="m", weights="w" * 100_000, sub__more="x")
    place.put_folder(source, "runs/one", marker="marker")
    assert [(item.name, item.size) for item in place.files()] == [
        ("runs/one/marker", 1), ("runs/one/sub/more", 1), ("runs/one/weights", 100_000),
    ]  # fmt: skip
    place.fetch_all([item.name for item in place.files("runs/one")], tmp_path / "b", last="runs/one/marker")
    assert (tmp_path / "b/runs/one/weights").read_text() == "w" * 100_000
    assert (tmp_path / "b/runs/one/sub/more").read_text() == "x"
    assert place.folders() == ["runs"] and (place / "runs").folders() == ["one"]


def test_the_marker_is_put_last_and_fetched_last(
    place: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    put, fetch = Folder.put, Folder.fetch
    monkeypatch.setattr(Folder, "put", lambda self, path, name: (order.append(name), put(self, path, name))[1])
    monkeypatch.setattr(Folder, "fetch", lambda self, name, path: (order.append(name), fetch(self, name, path))[1])
    place.put_folder(local(tmp_path / "a", a="", b="", z=""), "f", marker="a")
    place.fetch_all(["f/a", "f/b", "f/z"], tmp_path / "b", last="f/a")
    assert order[2] == order[5] == "f/a" and len(order) == 6


def test_texts_are_replaced_and_files_removed(place: Folder) -> None:
    place.write_text("a/b.json", "1")
    place.write_text("a/b.json", "two")
    assert place.read_text("a/b.json") == "two"
    found = place.stat("a/b.json")
    assert found is not None and found.size == 3 and abs(found.time - time.time()) < 60
    place.remove("a/c.json")  # is not there, and takes nothing else along
    assert [item.name for item in place.files()] == ["a/b.json"]
    place.remove("a")
    place.remove("a")
    assert place.stat("a/b.json") is None and place.files() == [] and place.files("nowhere") == []
    place.check()
    assert place.files() == []


def test_what_is_missing_is_said_with_its_place(place: Folder, tmp_path: Path) -> None:
    for call in (lambda: place.read_text("no.txt"), lambda: place.fetch("no.txt", tmp_path / "x")):
        with pytest.raises(FileNotFoundError, match=f"{place.uri}/no.txt"):
            call()
    assert list(tmp_path.glob("**/*.part")) == []


def test_a_missing_bucket_and_a_dead_server_are_said_with_their_place(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match=r"s3://no-such-bucket/x/a.txt.*bucket"):
        Folder("s3://no-such-bucket/x").write_text("a.txt", "")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")  # it goes before AWS_ENDPOINT_URL
    start = time.monotonic()
    with pytest.raises(OSError, match=r"prefix/.*/a.txt.*127.0.0.1"):
        Folder(s3).write_text("a.txt", "")
    assert time.monotonic() - start < 30


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=f"{tmp_path}/file/below/a.txt"):
        Folder(f"{tmp_path}/file/below").write_text("a.txt", "")


def test_an_s3_server_that_stops_and_comes_back_loses_no_write(monkeypatch: pytest.MonkeyPatch) -> None:
    server = S3()
    server.start()
    try:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        place, told = Folder(server.uri), []
        server.kill()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(RetryPolicy(90, warn=told.append).call, lambda: place.write_text("a.txt", "here"))
            time.sleep(3)
            assert not waiting.done()
            server.start()
            waiting.result(60)
        assert place.read_text("a.txt") == "here"
        assert len(told) == 1 and "tried again for up to 90 s" in told[0]
        server.kill()
        with pytest.raises(StorageUnavailable, match=r"refused a write for 3 s .*127\.0\.0\.1"):
            RetryPolicy(3, warn=told.append).call(lambda: place.write_text("a.txt", "gone"))
    finally:
        server.kill()


def test_uris_that_cannot_be_used_are_faults_with_the_nearest_valid_one() -> None:
    for good in ("s3://bucket/prefix", "s3://bucket", "s3://buck.et/a.b/", "/shared/runs", "//shared/a:b@c#d"):
        assert uri_faults(good, "storage.uri") == []
    wrong = {
        "s3://KEY:SECRET@bucket/x": "nearest valid: 's3://bucket/x'",
        "s3://KEY:a/b#SECRET/c@bucket/x": "nearest valid: 's3://bucket/x'",
        "SECRET_KEY=abc/SECRET s3://bucket/x": "nearest valid: 's3://bucket/prefix'",
        "key:SECRET/x@bucket/x": "nearest valid: 's3://bucket/",
        "s3://KEY@bucket/x": "nearest valid: 's3://bucket/x'",
        "s3://bucket/x?endpoint_override=http://h": "nearest valid: 's3://bucket/x'",
        "KEY:SECRET@bucket/x": "nearest valid: 's3://bucket/prefix'",
        "s3:KEY:SECRET@bucket/x": "nearest valid: 's3://bucket/prefix'",
        "s3:///x": "s3://bucket/prefix",
        "s3://bucket/a#b": "nearest valid: 's3://bucket/a-b'",
        "s3://bucket/a?": "nearest valid: 's3://bucket/a'",
        "s3://bucket//x": "nearest valid: 's3://bucket/x'",
        "s3://bucket/a/../b/./c": "nearest valid: 's3://bucket/a/b/c'",
        "s3://buck..et/x": "nearest valid: 's3://buck.et/x'",
        "s3://My_Bucket/x": "nearest valid: 's3://my-bucket/x'",
        "s3://[x": "nearest valid: 's3://bucket'",
        "gs://bucket/x": "s3://bucket/prefix or an absolute path, but got 'gs://bucket/x'; nearest valid: 's3://bucket/x'",
        "file:///mnt/x": "nearest valid: '/mnt/x'",
        "runs": f"nearest valid: '{os.getcwd()}/runs'",
    }
    for uri, words in wrong.items():
        [line] = uri_faults(uri, "storage.uri")
        assert (
            line.startswith("storage.uri must") and words in line and "SECRET" not in line.replace("AWS_SECRET", "")
        ), line
    assert len(uri_faults("s3://a_b//x", "storage.uri")) == 2


def test_the_scratch_of_a_killed_process_is_swept_and_that_of_a_living_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store.tempfile, "tempdir", str(tmp_path))
    code = (
        "import sys, time; from m3col.storage.object_store import Scratch\n"
        "s = Scratch(); print(s.path, flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert child.stdout is not None
    theirs = Path(child.stdout.readline().strip())
    mine = Scratch()
    assert theirs.is_dir() and mine.path.is_dir()
    child.kill()
    child.wait()
    other = Scratch()
    assert not theirs.exists() and mine.path.is_dir()
    mine.close()
    other.close()
    assert list(tmp_path.glob("m3col-*")) == []
