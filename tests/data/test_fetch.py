"""`fetch` from a local server: a folder is created only if all files are complete and valid."""

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from m3col.data import download as module
from m3col.data import loading
from m3col.data.download import FetchError, fetch
from m3col.errors import InputError

from .builders import edit, write_folder


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files. `truncate`: files of which only the first half is sent."""

    truncate: ClassVar[set[str]] = set()

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.name not in self.truncate or not path.exists():
            return super().do_GET()
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        return None


@pytest.fixture
def served(tmp_path, monkeypatch) -> Iterator[tuple[Path, str]]:
    """A folder with the layout of the repository, and the address of a server for it."""
    root = tmp_path / "served"
    for name in ("ROSMAP", "BRCA"):
        folder = write_folder(root / name, modalities=3, classes=5 if name == "BRCA" else 2)
        for k in (1, 2, 3):
            (folder / f"{k}_featname.csv").write_text("".join(f"f{c}\n" for c in range(3 + k)))
    sums = {f: hashlib.sha256((root / "ROSMAP" / f).read_bytes()).hexdigest() for f in module.FILES}
    monkeypatch.setitem(module.DIGESTS, "rosmap", sums)
    monkeypatch.setattr(Handler, "truncate", set())
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield root, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_fetches_a_set_that_loads(served, tmp_path, recwarn):
    root, url = served
    folder = fetch("rosmap", tmp_path / "new" / "data", base_url=url)
    assert folder == tmp_path / "new" / "data" / "rosmap" and left(folder.parent) == ["rosmap"]
    assert left(folder) == sorted([*module.FILES, "SHA256SUMS"])
    assert (folder / "2_te.csv").read_bytes() == (root / "ROSMAP" / "2_te.csv").read_bytes()
    assert loading.load("rosmap", data_dir=folder.parent).modalities == ("mRNA", "methylation", "miRNA")
    assert not [w for w in recwarn if w.category is UserWarning]


def test_says_that_brca_could_not_be_verified(served, tmp_path):
    with pytest.warns(UserWarning, match="no SHA-256 is known for 11 of 11 files"):
        folder = fetch("brca", tmp_path / "data", base_url=served[1])
    line = (folder / "SHA256SUMS").read_text().splitlines()[0]
    assert line == f"{hashlib.sha256((folder / '1_featname.csv').read_bytes()).hexdigest()}  1_featname.csv"
    assert loading.load("brca", data_dir=folder).num_classes == 5


def test_a_wrong_checksum_leaves_nothing(served, tmp_path):
    root, url = served
    edit(root / "ROSMAP" / "labels_tr.csv", row=1, to="1")
    with pytest.raises(FetchError, match=r"labels_tr.csv: SHA-256 must be \w{64}, but is \w{64}"):
        fetch("rosmap", tmp_path / "data", base_url=url)
    assert left(tmp_path) == ["served"]


@pytest.mark.parametrize("name", ["rosmap", "brca"])
def test_a_truncated_file_leaves_nothing(served, tmp_path, monkeypatch, name):
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(Handler, "truncate", {"labels_tr.csv"})
    with pytest.raises(FetchError, match=r"labels_tr.csv: truncated, \d+ of \d+ bytes came"):
        fetch(name, tmp_path / "data", base_url=served[1])
    assert left(tmp_path / "data") == []


def test_an_interrupted_download_leaves_nothing(served, tmp_path, monkeypatch):
    original, asked = module._download, []

    def interrupted(url: str) -> bytes:
        asked.append(url)
        if len(asked) == 5:
            raise KeyboardInterrupt
        return original(url)

    monkeypatch.setattr(module, "_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch("rosmap", tmp_path / "data", base_url=served[1])
    assert len(asked) == 5 and left(tmp_path) == ["served"]


def test_unverified_files_that_cannot_be_used_leave_nothing(served, tmp_path):
    root, url = served
    (root / "BRCA" / "1_tr.csv").write_text("<html>rate limited</html>\n")
    with pytest.raises(FetchError, match=r"cannot be used.*\n?.*1_tr\.csv"):
        fetch("brca", tmp_path / "data", base_url=url)
    assert left(tmp_path) == ["served"]


def test_a_missing_file_and_a_server_that_is_not_there(served, tmp_path):
    root, url = served
    (root / "ROSMAP" / "3_tr.csv").unlink()
    with pytest.raises(FetchError, match=r"3_tr\.csv: the server answered 404"):
        fetch("rosmap", tmp_path / "data", base_url=url)
    with pytest.raises(FetchError, match="could not be reached"):
        fetch("rosmap", tmp_path / "data", base_url="http://127.0.0.1:9")
    assert left(tmp_path) == ["served"]


def test_refuses_other_names_folders_that_exist_and_places_that_cannot_be_written(served, tmp_path):
    with pytest.raises(InputError, match="'rosmpa' cannot be fetched; did you mean 'rosmap'"):
        fetch("rosmpa", tmp_path, base_url=served[1])
    (tmp_path / "rosmap").mkdir()
    with pytest.raises(InputError, match="exists already"):
        fetch("rosmap", tmp_path, base_url=served[1])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        fetch("rosmap", tmp_path / "file" / "below", base_url=served[1])


def test_the_known_checksums_are_those_of_the_real_files(shared_data):
    assert len(module.DIGESTS["rosmap"]) == len(module.FILES) == 11
    fresh = {f: hashlib.sha256((shared_data / "rosmap" / f).read_bytes()).hexdigest() for f in module.FILES}
    assert fresh == module.DIGESTS["rosmap"]
