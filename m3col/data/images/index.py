"""Index of image files: content digest, width and height, and why a file cannot be decoded.

Results are stored in a database, keyed by path. They are valid while size, modification times and inode of the file,
the decoding rules and the version of Pillow stay the same. Inspecting a data set again then reads no image.
"""

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import PIL

from m3col.data.columns import encodable
from m3col.data.images import decoding

THREADS = min(8, os.cpu_count() or 1)

_DATABASE = "looks.db"

_NO_MEMORY = "cannot be decoded (out of memory)"

_TABLE = (
    "create table if not exists looks (path text primary key, stamp text, rules text, digest text, width int, "
    "height int, fault text)"
)

_CHUNK = 64  # files per task of the thread pool

_MAX_KNOWN = 200_000  # files whose result a process keeps in memory

_known: dict[str, tuple[str, "ImageInfo"]] = {}  # results kept in memory: by path, with the stamp of the file


@dataclass(frozen=True)
class ImageInfo:
    """The properties of one image file.

    Attributes:
        digest: SHA-256 of the content; "" if the file cannot be read.
        size: width and height after orientation; None if the image cannot be decoded.
        fault: why the image cannot be decoded; "" if it can.
    """

    digest: str = ""
    size: tuple[int, int] | None = None
    fault: str = ""


def folder() -> Path:
    """The folder of the index and of cached images and tokens.

    It is $M3COL_CACHE, else m3col in the user's cache folder, else (no home directory) in the temporary folder.
    """
    configured = os.environ.get("M3COL_CACHE")
    if configured:
        return Path(configured)
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "m3col"
    try:
        return Path.home() / ".cache" / "m3col"
    except RuntimeError:  # the user has no home directory, as in some containers
        return Path(tempfile.gettempdir()) / f"m3col-{os.getuid()}"


def inspect(values: Sequence[str | bytes], *, reread: Collection[str] = ()) -> list[ImageInfo]:
    """Returns the properties of each image. Files with a valid stored result are not read.

    If the database cannot be written, files are read again next time.

    Args:
        values: paths, or contents of files as bytes.
        reread: paths of files to read even if a valid result is stored.
    """
    distinct = list(dict.fromkeys(values))
    _recall(value for value in distinct if isinstance(value, str) and value not in _known)
    chunks = [distinct[start : start + _CHUNK] for start in range(0, len(distinct), _CHUNK)]
    new: dict[str, tuple[str, ImageInfo]] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        infos_by_chunk = pool.map(
            lambda chunk: [_inspect_one(value, new, reread=value in reread) for value in chunk], chunks
        )
        infos = dict(zip(distinct, chain.from_iterable(infos_by_chunk), strict=True))
    if len(_known) > _MAX_KNOWN:
        _known.clear()
    _known.update(new)
    _remember(new)
    return [infos[value] for value in values]


def _inspect_one(value: str | bytes, new: dict[str, tuple[str, ImageInfo]], *, reread: bool) -> ImageInfo:
    if isinstance(value, bytes):
        return _measured(value)
    stamp, known = _stamp(value), _known.get(value)
    if known is not None and known[0] == stamp and not reread:
        return known[1]
    try:
        with decoding.opened(value) as file:
            before, content, after = _stamp(file.fileno()), file.read(), _stamp(file.fileno())
    except decoding.Unreadable as error:
        return ImageInfo(fault=str(error))
    except OSError as error:
        return ImageInfo(fault=f"cannot be read ({error.strerror or error})")
    info = _measured(content)
    if before == after and info.fault != _NO_MEMORY:  # lack of memory is not a property of the file
        new[value] = (after, info)
    return info


def _stamp(file: str | int) -> str:
    """A stamp that changes with the content of a file. Tools such as `cp -p` preserve size and modification time."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _measured(content: bytes) -> ImageInfo:
    digest = hashlib.sha256(content).hexdigest()
    try:
        return ImageInfo(digest, decoding.measure(content))
    except MemoryError:
        return ImageInfo(digest, fault=_NO_MEMORY)
    except decoding.Unreadable as error:
        return ImageInfo(digest, fault=str(error))


def _rules() -> str:
    """What a result depends on besides the file: decoding rules, version and formats of Pillow."""
    return f"{decoding.RULES}, Pillow {PIL.__version__}: {', '.join(decoding.kinds())}"


def _open() -> sqlite3.Connection:
    folder().mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(folder() / _DATABASE, timeout=60)
    database.execute(_TABLE)
    return database


def _recall(paths: Iterable[str]) -> None:
    """Loads results that earlier processes stored for these files into `_known`."""
    storable = [path for path in paths if encodable(path)]
    if not storable:
        return
    columns = "path, stamp, digest, width, height, fault"
    try:
        with closing(_open()) as database:
            for start in range(0, len(storable), 500):
                batch = storable[start : start + 500]
                marks = ",".join("?" * len(batch))
                rows = database.execute(
                    f"select {columns} from looks where rules = ? and path in ({marks})", [_rules(), *batch]
                )
                for path, stamp, digest, width, height, fault in rows:
                    _known[path] = (stamp, ImageInfo(digest, (width, height) if width else None, fault))
    except (sqlite3.Error, OSError):
        pass


def _remember(new: dict[str, tuple[str, ImageInfo]]) -> None:
    rows = [
        (path, stamp, _rules(), info.digest, *(info.size or (None, None)), info.fault)
        for path, (stamp, info) in new.items()
        if encodable(path)
    ]
    if not rows:
        return
    try:
        with closing(_open()) as database, database:
            database.executemany("insert or replace into looks values (?, ?, ?, ?, ?, ?, ?)", rows)
    except (sqlite3.Error, OSError):
        pass
