"""Folders in a storage: `s3://bucket/prefix` through pyarrow, or a local path.

Each object is written atomically. A folder is complete once it has its marker file, which is written last.

Credentials come from the same sources as for the AWS tools: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE,
files in ~/.aws, the role of the machine. AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL has the address of another S3 server.
"""

import fcntl
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from m3col.errors import reason_of
from m3col.storage import atomic_files
from m3col.storage.redaction import has_password, quoted

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


_THREADS = 8

_CONNECT_S = 5.0

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")

_NO_NAMES = ("", ".", "..")  # invalid parts of a path

_SCRATCH = "m3col-scratch-"

_EXAMPLE = "s3://bucket/prefix"


def uri_faults(uri: str, key: str) -> list[str]:
    """Faults of the URI of a storage, one line each. A line begins with the config key `key`."""
    parts = _parts(uri)
    if has_password(uri) or (parts.scheme == "s3" and ("@" in parts.netloc or parts.query)):
        # A secret key may contain slashes; the part before them would be parsed as the bucket. Parse after the `@`.
        near = _nearest(_parts(f"s3://{uri.rpartition('@')[2]}") if "@" in uri else parts)
        return [
            f"{key} must hold neither keys nor options, because it is stored and shown; nearest valid: {near!r}, "
            "with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL in the environment"
        ]
    shown, rules = quoted(uri), []
    near = _nearest(parts) if shown == repr(uri) else _EXAMPLE
    if parts.scheme == "s3":
        if not _is_bucket(parts.netloc):
            rules.append(", with a bucket of 3 to 63 small letters, digits, dashes and single dots")
        # urlsplit parses `#...` and `?...` as fragment and query, and a Folder would drop them from the prefix.
        if "#" in uri or "?" in uri or any(part in _NO_NAMES for part in parts.path.rstrip("/").split("/")[1:]):
            rules.append(", with a prefix whose parts are not empty, '.' or '..', and without '#' and '?'")
    elif parts.scheme:
        rules.append(" or an absolute path")
    elif not os.path.isabs(uri):
        near = os.path.abspath(uri) if shown == repr(uri) else _EXAMPLE
        return [f"{key} must be s3://bucket/prefix or an absolute path, but got {shown}; nearest valid: {near!r}"]
    return [f"{key} must be s3://bucket/prefix{rule}, but got {shown}; nearest valid: {near!r}" for rule in rules]


def _parts(uri: str) -> SplitResult:
    try:
        return urlsplit(uri)
    except ValueError:  # such as an unclosed bracket
        return SplitResult("?", uri.partition("://")[2].partition("/")[0], "", "", "")


def _nearest(parts: SplitResult) -> str:
    """A valid URI near an invalid one, without a password."""
    if parts.scheme == "file":
        return parts.path
    bucket = re.sub(r"[^a-z0-9.-]", "-", parts.netloc.lower())
    bucket = re.sub(r"\.{2,}", ".", bucket)[:63].strip(".-")
    path = f"{parts.path}-{parts.fragment}" if parts.fragment else parts.path
    names = [name for name in path.split("/") if name not in _NO_NAMES]
    return "/".join(["s3:/", bucket if _is_bucket(bucket) else "bucket", *names])


def _is_bucket(name: str) -> bool:
    return bool(_BUCKET.fullmatch(name)) and ".." not in name


@dataclass(frozen=True)
class Stored:
    """A file in a storage.

    Attributes:
        name: relative to the listed folder.
        size: in bytes.
        time: of the last write, in Unix seconds of the storage's clock.
    """

    name: str
    size: int
    time: float


class Folder:
    """A folder in a storage. It need not exist yet. Names of files are relative, with slashes.

    Methods raise OSError with the path in the message, and FileNotFoundError for a missing file.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/") or "/"
        parts = urlsplit(self.uri)
        self.is_local = parts.scheme != "s3"
        self._root = self.uri if self.is_local else f"{parts.netloc}{parts.path}"

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> "Folder":
        return Folder(f"{self.uri}/{name}")

    @property
    def _system(self) -> "FileSystem":
        return _local() if self.is_local else _s3(*_settings())

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    @contextmanager
    def _naming_path(self, name: str) -> Iterator[None]:
        """Adds the path to the message of an OSError."""
        location = f"{self.uri}/{name}" if name else self.uri
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(f"{location}: not there") from None
        except OSError as error:
            raise OSError(f"{location}: {reason_of(error, limit=300)}") from None

    def stat(self, name: str) -> Stored | None:
        """Name, size and time of a file; None where it does not exist."""
        with self._naming_path(name):
            info = self._system.get_file_info(self._path(name))
        return Stored(name, info.size, info.mtime.timestamp()) if info.is_file else None

    def files(self, below: str = "") -> list[Stored]:
        """All files below this folder (or below its subfolder `below`), sorted by name."""
        from pyarrow.fs import FileSelector

        with self._naming_path(below):
            infos = self._system.get_file_info(FileSelector(self._path(below), recursive=True, allow_not_found=True))
        start = len(self._root) + 1
        stored = [Stored(i.path[start:], i.size, i.mtime.timestamp()) for i in infos if i.is_file]
        return sorted((item for item in stored if not _is_part(item.name)), key=lambda item: item.name)

    def folders(self) -> list[str]:
        """The names of the direct subfolders, sorted."""
        from pyarrow.fs import FileSelector, FileType

        with self._naming_path(""):
            infos = self._system.get_file_info(FileSelector(self._root, allow_not_found=True))
        return sorted(info.base_name for info in infos if info.type == FileType.Directory)

    def read_text(self, name: str) -> str:
        with self._naming_path(name), self._system.open_input_stream(self._path(name)) as stream:
            return bytes(stream.read()).decode()

    def write_text(self, name: str, text: str) -> None:
        """Replaces a file atomically."""

        def write(path: str) -> None:
            with self._system.open_output_stream(path) as stream:
                stream.write(text.encode())

        self._atomically(name, write)

    def put(self, local: Path, name: str) -> None:
        """Uploads one file atomically."""

        def write(path: str) -> None:
            from pyarrow.fs import copy_files

            copy_files(
                str(local), path, source_filesystem=_local(), destination_filesystem=self._system, use_threads=False
            )

        self._atomically(name, write)

    def _atomically(self, name: str, write: Callable[[str], None]) -> None:
        with self._naming_path(name):
            if not self.is_local:
                write(self._path(name))
                return
            path = Path(self._path(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_files.replaced(path) as part:
                write(str(part))

    def put_folder(self, local: Path, name: str, *, marker: str) -> None:
        """Uploads all files below `local`. The file `marker` is uploaded last: it shows that the folder is complete."""
        names = [str(path.relative_to(local)) for path in sorted(local.rglob("*")) if path.is_file()]
        names = [each for each in names if each != marker]
        _in_parallel(lambda each: self.put(local / each, f"{name}/{each}"), names)
        self.put(local / marker, f"{name}/{marker}")

    def fetch(self, name: str, local: Path) -> None:
        """Downloads one file atomically."""
        from pyarrow.fs import copy_files

        local.parent.mkdir(parents=True, exist_ok=True)
        with atomic_files.replaced(local) as part, self._naming_path(name):
            copy_files(
                self._path(name), str(part), source_filesystem=self._system, destination_filesystem=_local(),
                use_threads=False,
            )  # fmt: skip

    def fetch_all(self, names: Sequence[str], local: Path, *, last: str | None = None) -> None:
        """Downloads files to the same names below `local`. `last` comes after all others if it is among them."""
        _in_parallel(lambda name: self.fetch(name, local / name), [name for name in names if name != last])
        if last is not None and last in names:
            self.fetch(last, local / last)

    def remove(self, name: str) -> None:
        """Removes a file, or a folder with all its content. A missing one is no error."""
        from pyarrow.fs import FileType

        try:
            with self._naming_path(name):
                info = self._system.get_file_info(self._path(name))
                if info.is_file:
                    self._system.delete_file(self._path(name))
                elif info.type == FileType.Directory:
                    self._system.delete_dir(self._path(name))
        except FileNotFoundError:
            return

    def check(self) -> None:
        """Checks access: writes a small file, reads it back and removes it. Raises OSError where this fails."""
        name, text = f".check-{uuid.uuid4().hex[:8]}", "m3col"
        self.write_text(name, text)
        try:
            if self.read_text(name) != text:
                raise OSError(f"{self.uri}: a file that was written reads differently")
        finally:
            self.remove(name)


def _is_part(name: str) -> bool:
    last = name.rpartition("/")[2]
    return last.startswith(".") and last.endswith(atomic_files.PART)


def _in_parallel(call: Callable[[str], None], names: Sequence[str]) -> None:
    if len(names) < 2:
        for name in names:
            call(name)
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(call, names):
            pass


@lru_cache(maxsize=1)
def _local() -> "FileSystem":
    from pyarrow.fs import LocalFileSystem

    return LocalFileSystem()


def _settings() -> tuple[str | None, str | None, str | None]:
    """Endpoint, region and certificates from the environment: pyarrow reads only the credentials from there."""
    variable = os.environ.get
    endpoint = variable("AWS_ENDPOINT_URL_S3") or variable("AWS_ENDPOINT_URL") or None
    region = variable("AWS_REGION") or variable("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else None)
    return endpoint, region, variable("AWS_CA_BUNDLE") or None


@lru_cache(maxsize=8)
def _s3(endpoint: str | None, region: str | None, certificates: str | None) -> "FileSystem":
    from pyarrow.fs import S3FileSystem

    settings: dict[str, Any] = {"endpoint_override": endpoint, "region": region, "tls_ca_file_path": certificates}
    # With delayed open a small file takes one request instead of three.
    return S3FileSystem(
        connect_timeout=_CONNECT_S, allow_delayed_open=True,
        **{key: value for key, value in settings.items() if value is not None},
    )  # fmt: skip


class Scratch:
    """Temporary folder of this process for uploads and downloads.

    A killed process leaves its folder behind. The next process on the machine that creates a Scratch removes every such
    folder whose lock is free.
    """

    def __init__(self) -> None:
        sweep()
        self.path = Path(tempfile.mkdtemp(prefix=_SCRATCH))
        self._lock: IO[str] = (self.path / "lock").open("w", encoding="utf-8")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def sweep() -> None:
    """Removes the scratch folders of dead processes of this user."""
    for path in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        try:
            with (path / "lock").open(
                "r+", encoding="utf-8"
            ) as stream:  # a folder without a lock file is just being created
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue
