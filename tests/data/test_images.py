"""Decoding: every image format becomes 8-bit RGB, and every broken file is refused with the reason."""

import io
import os
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from m3col.data.images import decoding
from m3col.data.images.decoding import Missing, Unreadable, decode, fault, inside, measure

from .pair_builders import image_file, png_that_claims

HTML = b"\xef\xbb\xbf\n <!DOCTYPE html><html><body>404 not found</body></html>"


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(width: int = 96, height: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8))


def smooth(width: int, height: int) -> Image.Image:
    """A smooth gradient of colors, so that images of different sizes can be compared."""
    x, y = np.meshgrid(np.linspace(0, 3, width), np.linspace(0, 2, height))
    waves = [np.sin(x + y), np.cos(2 * x), np.sin(y * x)]
    return Image.fromarray(np.stack([127 + 120 * wave for wave in waves], axis=-1).astype(np.uint8))


@pytest.mark.parametrize(
    ("size", "shape"),
    [((300, 200), (32, 48, 3)), ((200, 300), (48, 32, 3)), ((10, 20), (64, 32, 3)), ((32, 32), (32, 32, 3))],
)
def test_the_short_side_is_as_asked_and_the_ratio_is_kept(size, shape):
    pixels = decode(encoded(smooth(*size)), 32)
    assert pixels.shape == shape and pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous and pixels.flags.owndata


def test_a_path_and_the_bytes_of_its_file_are_the_same_image(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(noise()))
    np.testing.assert_array_equal(decode(str(path), 16), decode(path.read_bytes(), 16))
    np.testing.assert_array_equal(decode(encoded(noise()), 64), np.asarray(noise()))  # nothing to do: unchanged


def test_resizing_smooths_instead_of_picking_pixels():
    board = np.indices((256, 256)).sum(axis=0) % 2 * 255
    pixels = decode(encoded(Image.fromarray(board.astype(np.uint8))), 32)
    assert np.abs(pixels.astype(int) - 127).max() <= 3


def test_a_large_jpeg_that_is_decoded_small_looks_like_one_that_is_decoded_whole():
    content = encoded(smooth(1600, 1200), "JPEG", quality=95)
    whole = Image.open(io.BytesIO(content)).resize((128, 96), Image.Resampling.BICUBIC)
    assert np.abs(decode(content, 96).astype(int) - np.asarray(whole).astype(int)).max() <= 4


@pytest.mark.parametrize("size", [(1000, 20), (20, 1000)])
def test_a_very_long_image_is_cut_from_the_middle(size):
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    longest = int(np.argmax(size))
    middle = [slice(None), slice(None)]
    middle[1 - longest] = slice(470, 530)
    pixels[tuple(middle)] = 255
    got = decode(encoded(Image.fromarray(pixels)), 20)
    assert got.shape == ((20, 80, 3) if longest == 0 else (80, 20, 3))
    line = got.mean(axis=(1, 2) if longest else (0, 2))
    assert line[10:70].min() == 255 and line[:9].max() == line[71:].max() == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_image_is_upright_by_its_exif_orientation(kind, orientation):
    upright = smooth(64, 48)
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # the camera's turn, which a viewer undoes
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright if orientation == 1 else upright.transpose(back[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(stored, kind, exif=exif, **({"quality": 98} if kind == "JPEG" else {}))
    got = decode(content, 48)
    assert got.shape == (48, 64, 3) and measure(content) == (64, 48)
    assert np.abs(got.astype(int) - np.asarray(upright).astype(int)).max() <= 12


def test_transparent_parts_are_white():
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    half.paste((0, 0, 255, 0), (0, 0, 4, 8))
    for image in (half, half.convert("LA"), half.convert("P")):
        pixels = decode(encoded(image), 8)
        assert (pixels[:, :4] == 255).all(), image.mode
        assert pixels[0, 6, 1] < 100, image.mode
    grey = Image.new("L", (8, 8), 7)
    assert (decode(encoded(grey, transparency=7), 8) == 255).all()  # one colour is declared transparent


def test_palette_cmyk_and_black_and_white_become_rgb():
    flat = Image.new("RGB", (16, 16), (200, 40, 40))
    for content in (
        encoded(flat.quantize(8)),
        encoded(flat.convert("CMYK"), "JPEG", quality=98),
        encoded(flat.convert("CMYK"), "TIFF"),
        encoded(flat, "GIF"),
        encoded(flat, "WEBP", lossless=True),
    ):
        assert np.abs(decode(content, 16).astype(int) - [200, 40, 40]).max() <= 4
    assert (decode(encoded(Image.new("1", (8, 8), 1)), 8) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF of 32 bits", "PPM"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    values = np.array([[0, 1000, 32768, 65535]] * 4, dtype=np.uint16)
    image = Image.fromarray(values.astype(np.int32) if kind == "TIFF of 32 bits" else values)
    pixels = decode(encoded(image, kind.split()[0]), 4)
    np.testing.assert_array_equal(pixels[0, :, 0], [0, 4, 128, 255])
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_wider_numbers_are_scaled_by_their_range():
    values = np.array([[-1.0, 0.0, 1.0, 3.0]] * 4, dtype=np.float32)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(values), "TIFF"), 4)[0, :, 0], [0, 64, 128, 255])
    flat = np.full((4, 4), 2.5, np.float32)
    assert (decode(encoded(Image.fromarray(flat), "TIFF"), 4) == 0).all()
    wide = np.array([[0, 1_000_000]] * 2, dtype=np.int32)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(wide), "TIFF"), 2)[0, :, 0], [0, 255])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    assert getattr(Image.open(io.BytesIO(content)), "n_frames", 1) == 3
    assert np.abs(decode(content, 8).astype(int) - [255, 0, 0]).max() <= 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("kept", [0.9, 0.5])
def test_a_truncated_file_is_refused_at_any_size(kind, kept):
    content = encoded(noise(640, 480), kind)
    cut = content[: int(kept * len(content))]
    for look in (lambda: decode(cut, 8), lambda: decode(cut, 480), lambda: measure(cut)):
        with pytest.raises(Unreadable, match=r"truncated|cannot be decoded|is not an image"):
            look()
    if kind in ("JPEG", "PNG"):
        with pytest.raises(Unreadable, match="is truncated"):
            decode(cut, 8)


def with_preview(content: bytes, preview: bytes) -> bytes:
    """A JPEG with an embedded smaller JPEG, as cameras write it."""
    inside = b"Exif\0\0" + preview
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(inside) + 2) + inside + content[2:]


def test_a_jpeg_whose_end_became_zeros_is_refused():
    small = encoded(noise(16, 16), "JPEG")
    for content in (
        encoded(noise(), "JPEG"),
        encoded(noise(), "JPEG", progressive=True),
        with_preview(encoded(noise(), "JPEG"), small),
    ):
        for kept in (0.5, 0.9):
            cut = int(kept * len(content))
            with pytest.raises(Unreadable, match="is truncated"):
                decode(content[:cut] + bytes(len(content) - cut), 16)
        with pytest.raises(Unreadable, match="is truncated"):
            measure(content[:-2] + bytes(2))
        # Behind its end a camera, or a disk, may put what it likes.
        for more in (bytes(1000), b"SEFT" + bytes(20), small + bytes(3)):
            assert measure(content + more) == (96, 64)


_PEAK = """
import re, sys
from pathlib import Path
from m3col.data.images import decoding

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

decoding.decode(sys.argv[1], 64)
before = peak()
decoding.decode(sys.argv[2], 64)
print((peak() - before) / 1024)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="asks Linux for the largest memory")
@pytest.mark.parametrize(("kind", "times"), [("RGBA", 2), ("I", 2.5)])
def test_a_large_image_takes_little_more_memory_than_its_pixels(tmp_path, kind, times):
    for name, side in (("small", 8), ("large", 4000)):
        image = Image.new(kind, (side, side)) if kind == "RGBA" else Image.fromarray(np.zeros((side, side), np.int32))
        image.save(tmp_path / name, "PNG" if kind == "RGBA" else "TIFF")
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(tmp_path / "small"), str(tmp_path / "large")],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert float(done.stdout) < times * 4 * side**2 / 2**20 + 60  # MB


def test_large_images_are_decoded_one_at_a_time(monkeypatch):
    most, now, lock = [0], [0], threading.Lock()
    rgb = decoding._rgb

    def slow(image: Image.Image) -> Image.Image:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        return rgb(image)

    monkeypatch.setattr(decoding, "_rgb", slow)
    for limit, expected in ((96 * 64 - 1, 1), (96 * 64, 4)):
        monkeypatch.setattr(decoding, "_LARGE", limit)
        most[0] = 0
        with ThreadPoolExecutor(4) as pool:
            assert len(list(pool.map(lambda _: decode(encoded(noise()), 16), range(4)))) == 4
        assert most[0] == expected


def test_strips_leave_no_trace(monkeypatch):
    x = np.random.default_rng(0).integers(0, 256, (60, 50, 4), dtype=np.uint8)
    image = Image.fromarray(x)
    wide = Image.fromarray((np.random.default_rng(1).normal(size=(60, 50)) * 1e4).astype(np.float32))
    contents = [encoded(one) for one in (image, image.convert("LA"), image.quantize(40))]
    contents += [encoded(image.convert("RGB"), transparency=(1, 2, 3)), encoded(image.convert("P"), transparency=3)]
    contents.append(encoded(wide, "TIFF"))
    whole = [decode(content, 50) for content in contents]
    monkeypatch.setattr(decoding, "_STRIP", 7 * 50)
    for content, expected in zip(contents, whole, strict=True):
        np.testing.assert_array_equal(decode(content, 50), expected)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"is empty \(zero bytes\)"),
        (HTML, "is an HTML page"),
        (b"<?xml version='1.0'?><!-- --><html xmlns='x'></html>", "is an HTML page"),
        (b"hello", r"is not an image \(JPEG, PNG, "),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "is not an image"),
        (png_that_claims(10_001, 10_000), "more than 100 million pixels"),
        (png_that_claims(60_000, 60_000), "more than 100 million pixels"),
    ],
    ids=["empty", "html", "xhtml", "text", "eps", "bomb", "large bomb"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_image_is_refused_with_its_reason(tmp_path, content, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for value in (content, str(path)):
        with pytest.raises(Unreadable, match=reason):
            decode(value, 16)
    assert fault(path, tmp_path) is not None


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_one_too_where_warnings_are_errors():
    with pytest.raises(Unreadable, match="a decompression bomb"):
        measure(png_that_claims(10_001, 10_000))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_known_before_anything_is_decoded(monkeypatch):
    from PIL import PngImagePlugin

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("was decoded"))
    with pytest.raises(Unreadable, match="a decompression bomb"):
        decode(png_that_claims(10_001, 10_000), 16)


def test_missing_files_folders_and_pipes_are_refused(tmp_path):
    with pytest.raises(Missing, match="the file is missing"):
        decode(str(tmp_path / "a.png"), 8)
    with pytest.raises(Unreadable, match="is not a file"):
        decode(str(tmp_path), 8)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(Unreadable, match="is not a file"):
        decode(str(tmp_path / "pipe.png"), 8)


def test_a_broken_orientation_tag_does_not_cost_the_image():
    tag = struct.pack("<HHI4s", 0x0112, 2, 3, b"up")  # a text where a number belongs
    tags = b"II*\0" + struct.pack("<IH", 8, 1) + tag + bytes(4)
    content = encoded(noise(), "JPEG", exif=b"Exif\0\0" + tags)
    assert Image.open(io.BytesIO(content)).getexif()[0x0112] == "up"
    assert decode(content, 64).shape == (64, 96, 3)


def test_a_image_lies_inside_its_folder(tmp_path):
    folder = tmp_path / "data"
    inner, outer = image_file(folder / "imgs" / "a.png", 1), image_file(tmp_path / "b.png", 2)
    (folder / "out.png").symlink_to(outer)
    (folder / "in.png").symlink_to(inner)
    (tmp_path / "data2").symlink_to(folder)
    root = os.path.realpath(folder)
    assert fault("imgs/a.png", folder) is None and fault(inner, folder) is None and fault(outer, folder) is not None
    assert fault("in.png", folder) is None and fault("imgs/a.png", tmp_path / "data2") is None
    assert inside("in.png", root) == inside("imgs/../imgs/a.png", root) == str(inner)
    for value in ("../b.png", "imgs/../../b.png", "out.png", ".", ".."):
        with pytest.raises(Unreadable, match="leaves the data folder" if value != "." else "data folder|missing"):
            inside(value, root)
    with pytest.raises(decoding.Outside, match="absolute path"):
        inside(str(inner), root)
    with pytest.raises(Missing, match=r"did you mean 'imgs/a\.png'"):
        inside("imgs/a.jpg", root)
    for value in ("imgs", "imgs/\0.png", "x" * 300, "imgs/\ud800.png"):
        with pytest.raises(Missing):
            inside(value, root)
    # a neighbour whose name begins like the folder's
    image_file(tmp_path / "database" / "c.png", 3)
    with pytest.raises(decoding.Outside):
        inside("../database/c.png", root)
