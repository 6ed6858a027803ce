"""Decodes image files to RGB arrays, or refuses them with a reason. Truncated files are refused, not repaired.

Damage that the decoder itself does not detect, such as wrong bytes inside a JPEG, results in wrong pixels.
"""

import contextlib
import functools
import io
import os
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

RULES = 2  # increment when the rules for refusing images change: results stored under older rules are then ignored

MAX_PIXELS = 100_000_000

LONGEST = 4  # maximal ratio of long to short side; longer images are center-cropped

_LARGE = 16_000_000  # pixels; a process decodes larger images one at a time, as each may take 1 GB

_STRIP = 2_000_000  # pixels processed at once in steps that need several times the memory of the image

# Pillow reads more formats than these, some of them by starting other programs (Ghostscript for EPS).
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF")

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")

_HTML = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script")

_END = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")  # a JPEG marker outside of the pixel data

_one_large = threading.Lock()

_BOMB = f"has more than {MAX_PIXELS // 1_000_000} million pixels: a decompression bomb"

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_SIDEWAYS = [_TURNS[tag] for tag in (5, 6, 7, 8)]


class Unreadable(ValueError):
    """An unusable image. The message is the reason, to be shown after the name of the image."""


class Missing(Unreadable):
    """There is no such file."""


class Outside(Unreadable):
    """The path leaves the data folder."""


def decode(value: str | bytes, short_side: int) -> NDArray[np.uint8]:
    """Decodes an image file (path, or content as bytes) to RGB [h, w, 3] with min(h, w) = `short_side`.

    Small images are enlarged. The EXIF orientation is applied. Transparent parts become white. 16 bits are scaled to
    8. Of an animation the first frame is used. The long side is center-cropped to at most 4 x `short_side`.

    Raises:
        Unreadable: the file cannot be read or decoded.
    """
    # The JPEG decoder may downscale to no less than twice the final size, so that its coarse filter stays invisible.
    image, _ = _load(value, 2 * short_side)
    width, height = image.size
    short = min(width, height)
    kept_width, kept_height = min(width, LONGEST * short), min(height, LONGEST * short)
    left, top = (width - kept_width) / 2, (height - kept_height) / 2
    size = tuple(max(short_side, round(side * short_side / short)) for side in (kept_width, kept_height))
    box = (left, top, left + kept_width, top + kept_height)
    return np.array(image.resize((size[0], size[1]), Image.Resampling.BICUBIC, box=box), dtype=np.uint8)


def measure(value: str | bytes) -> tuple[int, int]:
    """Decodes an image completely and returns its width and height after orientation. Raises Unreadable."""
    return _load(value, 16)[1]


def fault(path: str | Path, data_dir: str | Path) -> str | None:
    """Why the image at `path` (absolute, or relative to `data_dir`) cannot be used, or None. Decodes it completely."""
    root = os.path.realpath(data_dir)
    relative = os.path.relpath(path, root) if os.path.isabs(path) else str(path)
    try:
        measure(inside(relative, root))
    except Unreadable as error:
        return str(error)
    return None


def inside(value: str, root: str) -> str:
    """Resolves the path `value`, relative to the folder `root` (a real path), to the real path of a file inside `root`.

    Backslashes are read as slashes unless a file with backslashes in its name exists.

    Raises:
        Outside: the path is absolute or leaves `root`.
        Missing: there is no such file.
    """
    if re.match(r"(?i)[a-z]:[\\/]", value):
        raise Outside(f"is the path of a Windows drive; it must be relative to {root}")
    if re.match(r"(?i)\w{2,}://", value):
        raise Missing("is an address, not a file; download it, and name the file")
    value = with_slashes(value, root)
    if os.path.isabs(value):
        raise Outside(f"is an absolute path; it must be relative to {root}")
    try:
        path = os.path.realpath(os.path.join(root, value))
    except (OSError, ValueError) as error:  # a zero byte, or half of a surrogate pair
        raise Missing("is not a valid path") from error
    if not path.startswith(os.path.join(root, "")):
        raise Outside(f"leaves the data folder {root}")
    if not os.path.isfile(path):
        near = _near(value, root)
        raise Missing("the file is missing" + (f"; did you mean {near!r}?" if near else ""))
    return path


def with_slashes(value: str, root: str) -> str:
    """Replaces backslashes by slashes if only the path with slashes exists below `root`."""
    changed = value.replace("\\", "/")
    try:
        is_missing = changed != value and not os.path.exists(os.path.join(root, value))
        return changed if is_missing and os.path.exists(os.path.join(root, changed)) else value
    except (OSError, ValueError):  # a zero byte, or half of a surrogate pair
        return value


def _near(value: str, root: str) -> str:
    """An existing file that differs from a missing one only in suffix or case; "" if there is none."""
    stem = os.path.splitext(value)[0]
    candidates = [stem + suffix for suffix in _SUFFIXES if os.path.isfile(os.path.join(root, stem + suffix))]
    folder, name = os.path.split(value)
    try:
        entries = os.listdir(os.path.join(root, folder))
    except OSError:
        entries = []
    candidates += [os.path.join(folder, entry) for entry in sorted(entries) if entry.casefold() == name.casefold()]
    return candidates[0] if candidates else ""


def _load(value: str | bytes, least: int) -> tuple[Image.Image, tuple[int, int]]:
    """Returns the RGB image after orientation, and the width and height of the original.

    A JPEG may be downscaled while it is decoded, but no side falls below `least` pixels.
    """
    try:
        with opened(value) as file:
            try:
                image: Image.Image = Image.open(file, formats=kinds())
            except UnidentifiedImageError:
                file.seek(0)
                raise Unreadable(_not_an_image(file.read(1024))) from None
            width, height = image.size  # known from the header, before anything is decoded
            if width * height > MAX_PIXELS:
                raise Unreadable(_BOMB)
            with _one_large if width * height > _LARGE else contextlib.nullcontext():
                image.draft(None, (least, least))
                image.load()
                if image.format in ("JPEG", "MPO") and _ends_in_zeros(file):
                    raise Unreadable("is truncated: zeros stand where its end should be")
                turn = _TURNS.get(_orientation(image))
                image = _rgb(image)
                if turn is not None:
                    image = image.transpose(turn)
            return image, ((height, width) if turn in _SIDEWAYS else (width, height))
    except (Unreadable, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable(_BOMB) from error
    except Exception as error:  # for broken files, decoders raise nearly any exception
        if "truncated" in str(error).lower():
            raise Unreadable("is truncated") from error
        raise Unreadable(f"cannot be decoded ({error})") from error


def opened(value: str | bytes) -> IO[bytes]:
    """Opens a regular, non-empty file; the caller closes it. Raises Unreadable."""
    if isinstance(value, bytes):
        size, file = len(value), None
    else:
        try:
            status = os.stat(value)
            if not stat.S_ISREG(status.st_mode):  # opening a pipe would block forever
                raise Unreadable("is not a file")
            size, file = status.st_size, open(value, "rb")  # noqa: SIM115
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Missing("the file is missing") from error
        except OSError as error:
            raise Unreadable(f"cannot be read ({error.strerror or error})") from error
        except Unreadable:
            raise
        except ValueError as error:  # a zero byte, or half of a surrogate pair
            raise Missing("is not a valid path") from error
    if not size:
        if file is not None:
            file.close()
        raise Unreadable("is empty (zero bytes)")
    return io.BytesIO(value) if isinstance(value, bytes) else file  # type: ignore[return-value]


def _ends_in_zeros(file: IO[bytes]) -> bool:
    """Whether a JPEG ends in zeros and has no end marker, as an aborted download to a preallocated file does.

    Bytes behind the end marker are ignored: some cameras write data there.
    """
    file.seek(-2, os.SEEK_END)
    if file.read() != b"\0\0":
        return False
    file.seek(0)
    content = file.read()
    at = 2
    while (marker := _END.search(content, at)) is not None:
        kind, at = content[marker.end() - 1], marker.end()
        if kind == 0xD9:
            return False
        at += int.from_bytes(content[at : at + 2])  # skip the segment; after SOS (0xDA) the pixel data follow
    return True


@functools.cache
def kinds() -> tuple[str, ...]:
    """Those of the supported formats that the installed Pillow can read."""
    Image.init()
    return tuple(kind for kind in _FORMATS if kind in Image.OPEN)


def _not_an_image(start: bytes) -> str:
    """The fault of a file that is not an image, from its first bytes."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_HTML) or (text.startswith(b"<?xml") and b"<html" in text):
        return "is an HTML page"
    return f"is not an image ({', '.join(kinds())})"


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # the pixels may be fine although the EXIF data are broken
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if "transparency" not in image.info and image.mode not in ("RGBA", "LA", "PA"):
        return image.convert("RGB")
    opaque = Image.new("RGB", image.size)
    for top, bottom in _strips(image.width, image.height):
        box = (0, top, image.width, bottom)
        layer = image.crop(box).convert("RGBA")
        opaque.paste(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"), box)
    return opaque


def _strips(width: int, height: int) -> Iterator[tuple[int, int]]:
    """Yields first row and end row (exclusive) of horizontal strips of at most `_STRIP` pixels."""
    rows = max(1, _STRIP // width)
    return ((top, min(top + rows, height)) for top in range(0, height, rows))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scales gray values of more than 8 bits to 8 bits, which Pillow would clip.

    Values of 16 bits are scaled from 0..65535, others from their minimum and maximum.
    """
    raw = np.asarray(image)
    strips = list(_strips(image.width, image.height))

    def values(strip: tuple[int, int]) -> NDArray[np.float32]:
        return np.nan_to_num(raw[slice(*strip)].astype(np.float32), posinf=0, neginf=0)

    ends = [(float(x.min()), float(x.max())) for x in map(values, strips)]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    if image.mode != "F" and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    scaled = np.empty(raw.shape, dtype=np.uint8)
    for strip in strips:
        scaled[slice(*strip)] = np.rint((values(strip) - low) * (255 / (high - low if high > low else 1)))
    return Image.fromarray(scaled)
