"""Files of pictures, decoded to one form or refused with a reason: nothing is guessed, patched up or half read."""

import functools
import io
import os
import stat
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 100_000_000
LONGEST = 4  # times the short side: what is longer is cut from the middle
# Pillow reads more kinds than these, some of them with the help of other programs (EPS starts Ghostscript).
_KINDS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")
_HTML = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script")
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


class Unreadable(ValueError):
    """A picture that cannot be used; the message says why and fits after the picture's name."""


class Missing(Unreadable):
    """There is no such file."""


class Outside(Unreadable):
    """The path leaves the data folder."""


def decode(value: str | bytes, short_side: int) -> NDArray[np.uint8]:
    """The picture of a file (its path, or its bytes) as RGB [h, w, 3] with min(h, w) = `short_side`.

    Small pictures are enlarged. Upright by its EXIF orientation; transparent parts are white; 16 bits are scaled to 8;
    of an animation the first frame; the long side is cut from the middle to at most 4 x `short_side`. Raises
    Unreadable.
    """
    # Twice the size is kept until the last step, so that JPEG's coarse halving leaves no trace.
    image = _load(value, 2 * short_side)
    width, height = image.size
    short = min(width, height)
    kept_width, kept_height = min(width, LONGEST * short), min(height, LONGEST * short)
    left, top = (width - kept_width) / 2, (height - kept_height) / 2
    size = tuple(max(short_side, round(side * short_side / short)) for side in (kept_width, kept_height))
    box = (left, top, left + kept_width, top + kept_height)
    return np.array(image.resize((size[0], size[1]), Image.Resampling.BICUBIC, box=box), dtype=np.uint8)


def measure(value: str | bytes) -> tuple[int, int]:
    """Width and height of an upright picture that was decoded to its last byte. Raises Unreadable."""
    return _load(value, None).size


def fault(path: str | Path, data_dir: str | Path) -> str | None:
    """Why the picture at `path` (absolute, or relative to `data_dir`) cannot be used; it is decoded whole."""
    root = os.path.realpath(data_dir)
    relative = os.path.relpath(path, root) if os.path.isabs(path) else str(path)
    try:
        measure(inside(relative, root))
    except Unreadable as error:
        return str(error)
    return None


def inside(value: str, root: str) -> str:
    """The real path of the file `value`, which is relative to the folder `root` (a real path) and must lie in it.

    Raises Outside and Missing.
    """
    if os.path.isabs(value):
        raise Outside(f"is an absolute path; it must be relative to {root}")
    try:
        path = os.path.realpath(os.path.join(root, value))
    except (OSError, ValueError) as error:  # a zero byte, or half a character
        raise Missing("is not a valid path") from error
    if not path.startswith(os.path.join(root, "")):
        raise Outside(f"leaves the data folder {root}")
    if not os.path.isfile(path):
        stem = os.path.splitext(value)[0]
        other = [stem + suffix for suffix in _SUFFIXES if os.path.isfile(os.path.join(root, stem + suffix))]
        raise Missing("the file is missing" + (f"; did you mean {other[0]!r}?" if other else ""))
    return path


def _load(value: str | bytes, least: int | None) -> Image.Image:
    """The upright RGB picture; with `least`, a JPEG may come smaller, but no side below `least` where it was not."""
    try:
        with _opened(value) as file:
            try:
                image = Image.open(file, formats=_kinds())
            except UnidentifiedImageError:
                file.seek(0)
                raise Unreadable(_other(file.read(1024))) from None
            if image.width * image.height > MAX_PIXELS:  # known from the header, before anything is decoded
                raise Unreadable(_BOMB)
            if least is not None:
                image.draft(None, (least, least))
            image.load()
            turn = _TURNS.get(_orientation(image))
            rgb = _rgb(image)
            return rgb if turn is None else rgb.transpose(turn)
    except Unreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable(_BOMB) from error
    except Exception as error:  # the readers of broken files raise nearly anything
        if "truncated" in str(error).lower():
            raise Unreadable("is truncated") from error
        raise Unreadable(f"cannot be decoded ({error})") from error


def _opened(value: str | bytes) -> IO[bytes]:
    """The file, which is not empty. Raises Unreadable."""
    if isinstance(value, bytes):
        size, file = len(value), None
    else:
        try:
            found = os.stat(value)
            if not stat.S_ISREG(found.st_mode):  # to open a pipe would wait for ever
                raise Unreadable("is not a file")
            size, file = found.st_size, open(value, "rb")  # noqa: SIM115 - the caller closes it
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Missing("the file is missing") from error
        except OSError as error:
            raise Unreadable(f"cannot be read ({error.strerror or error})") from error
    if not size:
        if file is not None:
            file.close()
        raise Unreadable("is empty (zero bytes)")
    return io.BytesIO(value) if isinstance(value, bytes) else file  # type: ignore[return-value]


@functools.cache
def _kinds() -> tuple[str, ...]:
    Image.init()
    return tuple(kind for kind in _KINDS if kind in Image.OPEN)


def _other(start: bytes) -> str:
    """What a file is that is no picture."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_HTML) or (text.startswith(b"<?xml") and b"<html" in text):
        return "is an HTML page"
    return f"is not a picture ({', '.join(_kinds())})"


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # a broken tag says nothing about the pixels
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of more than 8 bits, scaled: Pillow would clip them. 16 bits by their range, wider ones by theirs."""
    x = np.nan_to_num(np.asarray(image).astype(np.float32), posinf=0, neginf=0)
    low, high = (0.0, 65535.0) if image.mode != "F" else (float(x.min()), float(x.max()))
    if float(x.max()) > high or float(x.min()) < low:
        low, high = float(x.min()), float(x.max())
    scaled = (x - low) * (255 / (high - low if high > low else 1))
    return Image.fromarray(np.rint(scaled).astype(np.uint8))
