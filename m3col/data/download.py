"""Downloads the data sets of the MOGONET repository. A folder is created only if all files arrived and are valid."""

import hashlib
import http.client
import os
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path

from m3col.data.catalog import TABLE
from m3col.data.dataset import SPLITS
from m3col.data.formats import numbered_csv
from m3col.errors import InputError, nearest

DEFAULT = "https://raw.githubusercontent.com/txWang/MOGONET/main"

TIMEOUT_S = 30.0  # longest wait for the next data of a response

WHOLE_S = 3600.0  # longest download of one file

_PART = 1 << 20  # bytes per read


FILES = tuple(f"{k}_{part}.csv" for k in (1, 2, 3) for part in ("featname", "te", "tr")) + (
    "labels_te.csv",
    "labels_tr.csv",
)

FOLDERS = {"rosmap": "ROSMAP", "brca": "BRCA"}

# SHA-256 of the files; none are known for brca
DIGESTS: dict[str, dict[str, str]] = {
    "rosmap": {
        "1_featname.csv": "1df5c536e47eb0d532abbb8bea6a9361bba01a913e03cd03b8ef06fb7849a660",
        "1_te.csv": "d9d9daf05915556fd13008fb6ad7d88e0c5a8a57e5a985548640d4cd1563712b",
        "1_tr.csv": "37bfcc58da320bf6c37b22617ed821dcfa96ca4abd334adf4d42c8e3375d972b",
        "2_featname.csv": "7431418fb193e02a1c1431f9446ccc227c8818a4d40c1cb72a2b640a0d8d38b7",
        "2_te.csv": "546e9d7f640e54c4c1d6540ed2c1a3adb10497635e7d6b8d4099b4930271ac76",
        "2_tr.csv": "b1d1d20f8793e5f11248218f19493d9a7be366ee5bbbaff585058401976f8a21",
        "3_featname.csv": "2b0b3451af16597ae34342a6abc99e397482fef30a61821a8e8fe7cb69276bae",
        "3_te.csv": "c0d9efd6c35e8c5768b759238c95c64674d7e1e7f76ed07fca6f168d67e676f4",
        "3_tr.csv": "fd8708bc0c41f774209f9e6a49a74c5a9acd510dd62eadc299a18d49ccd9e862",
        "labels_te.csv": "20d728c6f51f79ff5fa7719b960daf22074a0e6e1f3028869042b02ca4e3f68d",
        "labels_tr.csv": "5859aa107dbf406937938ebefbec122d01fea5d41a9bd0292199f4406749e45d",
    },
    "brca": {},
}


class FetchError(RuntimeError):
    """A download failed or the files are not the expected ones. No file was kept."""


def fetch(name: str, to: Path, *, base_url: str = DEFAULT) -> Path:
    """Downloads `rosmap` or `brca` to the new folder `to`/`name`.

    Each file is compared with its SHA-256 if that is known; otherwise a UserWarning is issued. The digests of the
    received files are written to SHA256SUMS. The folder is created atomically once all files are complete and readable.

    Args:
        name: name of the data set.
        to: parent folder.
        base_url: address of the repository.

    Returns:
        The folder.

    Raises:
        InputError: the name is unknown, or the folder exists or cannot be written.
        FetchError: a fault of network, checksum or content.
    """
    if name not in FOLDERS:
        raise InputError([f"data fetch: {name!r} cannot be fetched{nearest(name, FOLDERS)}"])
    target = Path(to) / name
    if target.exists():
        raise InputError([f"{target}: exists already; remove it, or choose another folder with --to"])
    created = [p for p in (Path(to), *Path(to).parents) if not p.exists()]
    done = False
    try:
        try:
            Path(to).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=to, prefix=f".{name}-") as temporary:
                part = Path(temporary) / name
                part.mkdir()
                _fill(part, name, base_url)
                os.replace(part, target)
                done = True
        except OSError as error:
            raise InputError([f"{target}: cannot be written ({error.strerror or error})"]) from error
    finally:
        if not done:
            _remove_empty(created)
    unknown = [file for file in FILES if file not in DIGESTS[name]]
    if unknown:
        warnings.warn(
            f"{name}: no SHA-256 is known for {len(unknown)} of {len(FILES)} files, so they were checked "
            f"for their layout only; {target / 'SHA256SUMS'} holds what came",
            stacklevel=2,
        )
    return target


def _fill(part: Path, name: str, base_url: str) -> None:
    """Downloads every file into `part` and validates the folder."""
    sums = []
    for file in FILES:
        content = _download(f"{base_url.rstrip('/')}/{FOLDERS[name]}/{file}")
        digest = hashlib.sha256(content).hexdigest()
        expected = DIGESTS[name].get(file, digest)
        if digest != expected:
            raise FetchError(f"{file}: SHA-256 must be {expected}, but is {digest} ({len(content)} bytes came)")
        (part / file).write_bytes(content)
        sums.append(f"{digest}  {file}\n")
    (part / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    try:
        numbered_csv.read(part, TABLE[name], None, SPLITS)
    except InputError as error:
        raise FetchError(f"the files of {name} came, but cannot be used: {error}") from error


def _download(url: str) -> bytes:
    """Downloads `url`. Raises FetchError, also if fewer bytes arrive than the server announced."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            return _content(response)
    except urllib.error.HTTPError as error:
        raise FetchError(f"{url}: the server answered {error.code} {error.reason}") from error
    except http.client.IncompleteRead as error:
        received = len(error.partial)
        raise FetchError(f"{url}: truncated, {received} of {received + (error.expected or 0)} bytes came") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError(f"{url}: could not be reached ({getattr(error, 'reason', error)})") from error


def _content(response: http.client.HTTPResponse) -> bytes:
    """Reads the whole response. Raises IncompleteRead if it is truncated, TimeoutError after `WHOLE_S` seconds."""
    until, parts = time.monotonic() + WHOLE_S, []
    while part := response.read1(_PART):
        parts.append(part)
        if time.monotonic() > until:
            raise TimeoutError(f"not through after {WHOLE_S:g} s")
    if missing := getattr(response, "length", None):  # only HTTP responses have a length
        raise http.client.IncompleteRead(b"".join(parts), missing)
    return b"".join(parts)


def _remove_empty(folders: list[Path]) -> None:
    """Removes the folders (innermost first) that are still empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
