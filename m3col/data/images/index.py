"""What is known of image files: a digest of the content, width and height, and why one cannot be decoded.

It is remembered by path, size, times of change and inode, and as long as the rules and Pillow stay the same: a second
look at a data set reads no image.
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

_REMEMBERED = "looks.db"

_NO_MEMORY = "cannot be decoded (out of memory)"

_TABLE = (
    "create table if not exists looks (path text primary key, stamp text, rules text, digest text, width int, "
    "height int, fault text)"
)

_CHUNK = 64  # files that one thread looks at in a row

_MOST = 200_000  # files that a process keeps in mind

_known: dict[str, tuple[str, "ImageInfo"]] = {}  # of this process: by path, with the file's stamp


@dataclass(frozen=True)
class ImageInfo:
    """`digest`: SHA-256 of the file's content, "" where it cannot be read; `size`: width and height of the upright
    image; `fault`: why it cannot be decoded, None and "" otherwise."""

    digest: str = ""
    size: tuple[int, int] | None = None
    fault: str = ""


def folder() -> Path:
    """Where this is remembered, and decoded images and tokens are kept: $M3COL_CACHE, or m3col in the user's cache
    folder, or where nobody knows that, in the one for temporary files."""
    given = os.environ.get("M3COL_CACHE")
    if given:
        return Path(given)
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "m3col"
    try:
        return Path.home() / ".cache" / "m3col"
    except RuntimeError:  # a user whom the machine does not know, as in a container
        return Path(tempfile.gettempdir()) / f"m3col-{os.getuid()}"


def inspect(values: Sequence[str | bytes], *, anew: Collection[str] = ()) -> list[ImageInfo]:
    """A look at each image, given by its path or by the content of its file. `anew`: paths of files that are read,
    whatever is remembered of them. A folder that cannot be written costs time only."""
    distinct = list(dict.fromkeys(values))
    _recall(value for value in distinct if isinstance(value, str) and value not in _known)
    chunks = [distinct[start : start + _CHUNK] for start in range(0, len(distinct), _CHUNK)]
    new: dict[str, tuple[str, ImageInfo]] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        each = pool.map(lambda chunk: [_look_at(value, new, anew=value in anew) for value in chunk], chunks)
        found = dict(zip(distinct, chain.from_iterable(each), strict=True))
    if len(_known) > _MOST:
        _known.clear()
    _known.update(new)
    _remember(new)
    return [found[value] for value in values]


def _look_at(value: str | bytes, new: dict[str, tuple[str, ImageInfo]], *, anew: bool) -> ImageInfo:
    if isinstance(value, bytes):
        return _judged(value)
    stamp, known = _stamp(value), _known.get(value)
    if known is not None and known[0] == stamp and not anew:
        return known[1]
    try:
        with decoding.opened(value) as file:
            before, content, after = _stamp(file.fileno()), file.read(), _stamp(file.fileno())
    except decoding.Unreadable as error:
        return ImageInfo(fault=str(error))
    except OSError as error:
        return ImageInfo(fault=f"cannot be read ({error.strerror or error})")
    found = _judged(content)
    if before == after and found.fault != _NO_MEMORY:  # which says nothing of the file
        new[value] = (after, found)
    return found


def _stamp(file: str | int) -> str:
    """What changes with a file's content. Size and time of writing alone are kept by tools such as `cp -p`."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _judged(content: bytes) -> ImageInfo:
    digest = hashlib.sha256(content).hexdigest()
    try:
        return ImageInfo(digest, decoding.measure(content))
    except MemoryError:
        return ImageInfo(digest, fault=_NO_MEMORY)
    except decoding.Unreadable as error:
        return ImageInfo(digest, fault=str(error))


def _rules() -> str:
    """What a verdict depends on beside the file."""
    return f"{decoding.RULES}, Pillow {PIL.__version__}: {', '.join(decoding.kinds())}"


def _open() -> sqlite3.Connection:
    folder().mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(folder() / _REMEMBERED, timeout=60)
    database.execute(_TABLE)
    return database


def _recall(paths: Iterable[str]) -> None:
    """Puts what earlier processes saw of these files into `_known`."""
    wanted = [path for path in paths if encodable(path)]
    if not wanted:
        return
    columns = "path, stamp, digest, width, height, fault"
    try:
        with closing(_open()) as database:
            for start in range(0, len(wanted), 500):
                some = wanted[start : start + 500]
                marks = ",".join("?" * len(some))
                rows = database.execute(
                    f"select {columns} from looks where rules = ? and path in ({marks})", [_rules(), *some]
                )
                for path, stamp, digest, width, height, fault in rows:
                    _known[path] = (stamp, ImageInfo(digest, (width, height) if width else None, fault))
    except (sqlite3.Error, OSError):
        pass


def _remember(new: dict[str, tuple[str, ImageInfo]]) -> None:
    rows = [
        (path, stamp, _rules(), seen.digest, *(seen.size or (None, None)), seen.fault)
        for path, (stamp, seen) in new.items()
        if encodable(path)
    ]
    if not rows:
        return
    try:
        with closing(_open()) as database, database:
            database.executemany("insert or replace into looks values (?, ?, ?, ?, ?, ?, ?)", rows)
    except (sqlite3.Error, OSError):
        pass
