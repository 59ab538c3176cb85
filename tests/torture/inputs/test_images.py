"""Image files of unusual modes and formats, damaged files, false headers, and files that are not images."""

import os
import socket
import struct
import zlib
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from tests.torture.inputs.drawing import encode, nuclei, picture, tiff

ImageFile = tuple[bytes, np.ndarray | None, float]
"""The bytes of a file, its pixels as RGB (None if it must be refused), and their largest mean error."""

LOSSY = 3.0

RGB = picture(7)


def gray(values: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(values).convert("L"))


def thrice(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=-1)


def transparent(values: np.ndarray, mode: str = "RGBA") -> tuple[Image.Image, np.ndarray]:
    """An image with a transparent left half, and its pixels on white."""
    image = Image.fromarray(values).convert(mode)
    alpha = np.full(values.shape[:2], 255, np.uint8)
    alpha[:, : values.shape[1] // 2] = 0
    image.putalpha(Image.fromarray(alpha))
    expected = np.asarray(Image.fromarray(values).convert(mode).convert("RGB")).copy()
    expected[:, : values.shape[1] // 2] = 255
    return image, expected


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_by_hand(width: int, height: int, depth: int, colour: int, rows: bytes, interlace: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_rows(values: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in values)


def interlaced(values: np.ndarray) -> bytes:
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    height, width, _ = values.shape
    rows = b"".join(png_rows(np.ascontiguousarray(values[y::dy, x::dx])) for y, x, dy, dx in passes)
    return png_by_hand(width, height, 8, 2, rows, interlace=1)


def with_exif(values: np.ndarray) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees, which must be ignored: the mask is not rotated
    return encode(values, "JPEG", quality=95, exif=exif)


def with_gamma(values: np.ndarray) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", 45455))
    info.add_text("Comment", "x" * 100)
    return encode(values, "PNG", pnginfo=info)


def palette(values: np.ndarray) -> ImageFile:
    image = Image.fromarray(values).quantize(16)
    return encode(image), np.asarray(image.convert("RGB")), 0


def palette_on_white(values: np.ndarray) -> ImageFile:
    image = Image.fromarray(values).quantize(16)
    expected = np.asarray(image.convert("RGB")).copy()
    expected[np.asarray(image) == 3] = 255
    return encode(image, transparency=3), expected, 0


def animated(values: np.ndarray, kind: str) -> bytes:
    frames = [Image.fromarray(values), Image.fromarray(255 - values)]
    return encode(frames[0], kind, save_all=True, append_images=frames[1:])


MODES: dict[str, Callable[[np.ndarray], ImageFile]] = {
    "RGB PNG": lambda v: (encode(v), v, 0),
    "gray PNG": lambda v: (encode(gray(v)), thrice(gray(v)), 0),
    "one-bit PNG": lambda v: (
        encode(Image.fromarray(gray(v) > 90), "PNG"),
        thrice((gray(v) > 90).astype(np.uint8) * 255),
        0,
    ),
    "gray PNG with transparency": lambda v: (encode((t := transparent(v, "L"))[0], "PNG"), t[1], 0),
    "palette PNG": palette,
    "palette PNG with a transparent colour": palette_on_white,
    "RGBA PNG": lambda v: (encode((t := transparent(v))[0], "PNG"), t[1], 0),
    "RGBA TIFF": lambda v: (encode((t := transparent(v))[0], "TIFF"), t[1], 0),
    "interlaced PNG": lambda v: (interlaced(v), v, 0),
    "PNG with gamma": lambda v: (with_gamma(v), v, 0),
    "two-bit gray PNG": lambda v: (
        png_by_hand(256, 256, 2, 0, png_rows(np.full((256, 64), 0b00011011, np.uint8))),
        thrice(np.tile(np.array([0, 85, 170, 255], np.uint8), (256, 64))),
        0,
    ),
    "animated PNG": lambda v: (animated(v, "PNG"), None, 0),
    "16-bit gray PNG": lambda v: (encode(Image.fromarray(gray(v).astype(np.uint16) * 257), "PNG"), None, 0),
    "16-bit RGB PNG": lambda v: (png_by_hand(256, 256, 16, 2, png_rows(v.astype(">u2") * 257)), None, 0),
    "JPEG": lambda v: (encode(v, "JPEG", quality=95), v, LOSSY),
    "progressive JPEG": lambda v: (encode(v, "JPEG", quality=95, progressive=True), v, LOSSY),
    "gray JPEG": lambda v: (encode(gray(v), "JPEG", quality=95), thrice(gray(v)), LOSSY),
    "JPEG rotated by EXIF": lambda v: (with_exif(v), v, LOSSY),
    "CMYK JPEG": lambda v: (encode(Image.fromarray(v).convert("CMYK"), "JPEG", quality=95), None, 0),
    "CMYK TIFF": lambda v: (encode(Image.fromarray(v).convert("CMYK"), "TIFF"), None, 0),
    "LAB TIFF": lambda v: (tiff(v, photometric="cielab"), None, 0),
    "YCbCr TIFF": lambda v: (encode(v, "TIFF", compression="jpeg", quality=95), v, LOSSY),
    "float TIFF": lambda v: (tiff(gray(v).astype(np.float32) / 255), None, 0),
    "float RGB TIFF": lambda v: (tiff(v.astype(np.float32) / 255, photometric="rgb"), None, 0),
    "16-bit gray TIFF": lambda v: (tiff(gray(v).astype(np.uint16) * 257), None, 0),
    "16-bit RGB TIFF": lambda v: (tiff(v.astype(np.uint16) * 257, photometric="rgb"), None, 0),
    "32-bit TIFF": lambda v: (tiff(gray(v).astype(np.uint32)), None, 0),
    "signed TIFF": lambda v: (tiff(gray(v).astype(np.int8)), None, 0),
    "complex TIFF": lambda v: (tiff(gray(v).astype(np.complex64)), None, 0),
    "five-channel TIFF": lambda v: (tiff(np.zeros((256, 256, 5), np.uint8), photometric="minisblack"), None, 0),
    "two-channel TIFF": lambda v: (tiff(v[..., :2].copy(), photometric="minisblack", planarconfig="contig"), None, 0),
    "planar TIFF": lambda v: (tiff(np.moveaxis(v, -1, 0).copy(), photometric="rgb", planarconfig="separate"), v, 0),
    "tiled TIFF": lambda v: (tiff(v, tile=(64, 64), photometric="rgb"), v, 0),
    "BigTIFF": lambda v: (tiff(v, bigtiff=True, photometric="rgb"), v, 0),
    "big-endian TIFF": lambda v: (tiff(v, byteorder=">", photometric="rgb"), v, 0),
    "white-is-zero TIFF": lambda v: (tiff(gray(v), photometric="miniswhite"), thrice(255 - gray(v)), 0),
    "TIFF of two pages": lambda v: (tiff(np.stack([v, v]), photometric="rgb"), None, 0),
    "pyramidal TIFF": lambda v: (pyramid(v), None, 0),
    "OME TIFF": lambda v: (tiff(v, ome=True, photometric="rgb"), v, 0),
    "ImageJ TIFF": lambda v: (tiff(v, imagej=True), v, 0),
    **{
        f"TIFF compressed with {name}": lambda v, name=name: (encode(v, "TIFF", compression=name), v, 0)
        for name in ("tiff_lzw", "packbits", "tiff_adobe_deflate", "tiff_deflate", "zstd", "lzma")
    },
    "GIF": lambda v: (encode(v, "GIF"), None, 0),
    "animated GIF": lambda v: (animated(v, "GIF"), None, 0),
    "WebP": lambda v: (encode(v, "WEBP", lossless=True), v, 0),
    "lossy WebP": lambda v: (encode(v, "WEBP", quality=95), v, LOSSY),
    "animated WebP": lambda v: (animated(v, "WEBP"), None, 0),
    "BMP": lambda v: (encode(v, "BMP"), v, 0),
    "PPM": lambda v: (encode(v, "PPM"), None, 0),
    "JPEG 2000": lambda v: (encode(v, "JPEG2000"), None, 0),
    "ICO": lambda v: (encode(v, "ICO", sizes=[(256, 256)]), None, 0),
    "several JPEGs in one file": lambda v: (
        encode(v, "MPO", save_all=True, append_images=[Image.fromarray(255 - v)]),
        v,
        LOSSY,
    ),
    "PNG with trailing bytes": lambda v: (encode(v) + b"<script>" * 99, v, 0),
}


def pyramid(values: np.ndarray) -> bytes:
    file = BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(values, subifds=1, tile=(64, 64), photometric="rgb")
        writer.write(values[::2, ::2].copy(), tile=(64, 64), photometric="rgb", subfiletype=1)
        writer.write(values[::4, ::4].copy(), tile=(64, 64), photometric="rgb")
    return file.getvalue()


def of_size(height: int, width: int) -> bytes:
    return encode(np.full((height, width, 3), 99, np.uint8))


def changed(data: bytes, at: int, to: bytes) -> bytes:
    return data[:at] + to + data[at + len(to) :]


def with_size(width: int, height: int) -> bytes:
    """A PNG of 256 x 256 pixels with another size in its header, and a valid CRC."""
    return png_by_hand(width, height, 8, 2, png_rows(np.full((256, 256, 3), 99, np.uint8)))


def tiff_bomb() -> bytes:
    """A small file whose header says 40,000 x 40,000 pixels."""
    small = bytearray(tiff(np.zeros((16, 16), np.uint8)))
    with tifffile.TiffFile(BytesIO(bytes(small))) as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tag = file.pages.first.tags[name]
            code = "<I" if tag.dtype == 4 else "<H"
            struct.pack_into(code, small, tag.valueoffset, 40_000)
    return bytes(small)


WRONG: dict[str, bytes] = {
    "empty file": b"",
    "one byte": b"\x89",
    "text": b"this is not an image\n" * 50,
    "login page": b"<!DOCTYPE html><html><body>Sign in</body></html>",
    "zip": b"PK\x03\x04" + bytes(400),
    "NumPy array": b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (256, 256, 3), }"
    + b" " * 99,
    "pickle": b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.",
    "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
    "only the PNG signature": b"\x89PNG\r\n\x1a\n",
    "PNG without a header": b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""),
    "PNG of width 0": with_size(0, 256),
    "PNG of height 0": with_size(256, 0),
    "PNG of 2**31 - 1 pixels a side": with_size(2**31 - 1, 2**31 - 1),
    "PNG bomb of 60,000 pixels a side": with_size(60_000, 60_000),
    "PNG of fewer rows than its header says": with_size(256, 300),
    "PNG with a wrong CRC": changed(of_size(256, 256), 40, b"\0\0\0\0"),
    "PNG with an invalid bit depth": png_by_hand(256, 256, 3, 0, bytes(9999)),
    "PNG with a bit depth of 7": png_by_hand(256, 256, 7, 2, bytes(9999)),
    "PNG with a huge chunk length": b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffIHDR" + bytes(100),
    "PNG text bomb": of_size(256, 256)[:33]
    + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26)))
    + of_size(256, 256)[33:-50],
    "only the JPEG signature": b"\xff\xd8\xff\xe0",
    "JPEG without pixels": b"\xff\xd8\xff\xd9",
    "TIFF with its directory beyond the end": b"II*\0\xff\xff\xff\x7f",
    "TIFF with a directory that points to itself": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    "TIFF bomb of 40,000 pixels a side": tiff_bomb(),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "EPS with a command": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch pwned) run\n",
    "1 x 5000 pixels": of_size(1, 5000),
    "5000 x 1 pixels": of_size(5000, 1),
}
"""Bytes that cannot be used as an image, in a file that is named like one."""

SIZES = {
    "1 x 1": (1, 1),
    "1 x 9": (1, 9),
    "9 x 1": (9, 1),
    "3 x 700": (3, 700),
    "700 x 3": (700, 3),
    "511 x 255": (511, 255),
}


def add_odd(data: Any, content: bytes, case: str = "", shape: tuple[int, int] = (256, 256)) -> Path:
    """Add an image file, with a suffix that fits the case, and a mask."""
    data.add("odd", content, nuclei(*shape))
    kind = "tif" if "TIFF" in case else "jpg" if "JPEG" in case and "2000" not in case else "png"
    return data.image("odd.png").rename(data.image(f"odd.{kind}"))


def test_modes_and_formats(dataset: Any, some_of: Any) -> None:
    for case, make in some_of(MODES, 5).items():
        data = dataset()
        content, expected, tolerance = make(RGB)
        add_odd(data, content, case)
        check = None if expected is None else lambda _, d=data, e=expected, t=tolerance: d.pixels("odd", e, t)
        data.try_embed("image: unusual mode or format", case, check=check)


def test_invalid_files(dataset: Any, some_of: Any) -> None:
    for case, content in some_of(WRONG, 4).items():
        data = dataset()
        add_odd(data, content)
        data.try_embed("image: invalid file or header", case)


def test_sizes(dataset: Any, some_of: Any) -> None:
    for case, size in some_of(SIZES, 1).items():
        data = dataset()
        add_odd(data, of_size(*size), shape=size)
        data.try_embed("image: unusual size", case, check=lambda _, d=data, size=size: preparation_problem(d, size))


def preparation_problem(data: Any, size: tuple[int, int]) -> str:
    store = data.store()
    found = store.read_samples([store.row_of("odd")])[0]
    inside = ~found.ignore
    wrong = inside.sum() == 0 or (found.image[inside] != 99).any() or found.image[~inside].any()
    return f"wrong preparation, of size {found.size}" if wrong or found.size != size else ""


FILES = {
    "png": (encode(RGB), 0),
    "jpg": (encode(RGB, "JPEG", quality=95), LOSSY),
    "tif": (encode(RGB, "TIFF", compression="tiff_lzw"), 0),
    "tiff": (tiff(RGB, tile=(64, 64), photometric="rgb", compression="zlib"), 0),
}
"""Suffix -> a valid file, and the largest mean error of its pixels."""


def truncate(content: bytes, random: np.random.Generator) -> bytes:
    return content[: int(random.integers(1, len(content)))]


def change_bytes(content: bytes, random: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    for at in random.integers(0, len(content), int(random.integers(1, 5))):
        damaged[at] ^= int(random.integers(1, 256))
    return bytes(damaged)


@pytest.mark.parametrize(
    ("fault", "damage", "long"),
    [("image: truncated", truncate, 60), ("image: bytes changed", change_bytes, 80)],
)
def test_random_damage(fault: str, damage: Any, long: int, dataset: Any, profile: Any) -> None:
    """A file may be accepted if its pixels are right.

    That happens to a JPEG or TIFF that lacks only its last bytes. JPEG, and TIFF without checksums, cannot detect a
    changed pixel: there, a file with changed bytes may have any pixels.
    """
    for number in range(profile.trials(short=2, long=long)):
        random = profile.random(1 if damage is truncate else 2, number)
        kind, (content, tolerance) = list(FILES.items())[number % 4]
        data = dataset()
        add_odd(data, damage(content, random)).rename(data.image(f"odd.{kind}"))
        check = partial(pixels_problem, data, tolerance) if damage is truncate or kind == "png" else lambda _: ""
        data.try_embed(fault, f"{kind}, trial {number}", check=check)


def pixels_problem(data: Any, tolerance: float, _: Any) -> str:
    return str(data.pixels("odd", RGB, tolerance))


def socket_file(file: Path) -> None:
    before = Path.cwd()
    os.chdir(file.parent)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(file.name)
    os.chdir(before)


def endless(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(1 << 40)


NOT_FILES: dict[str, Callable[[Path], None]] = {
    "folder": lambda file: file.mkdir(),
    "dangling link": lambda file: file.symlink_to(file.with_name("nothing")),
    "loop of links": lambda file: file.symlink_to(file.name),
    "pipe": lambda file: os.mkfifo(file),
    "device": lambda file: file.symlink_to("/dev/zero"),
    "terminal": lambda file: file.symlink_to("/dev/tty"),
    "memory of the process": lambda file: file.symlink_to("/proc/self/mem"),
    "socket": socket_file,
    "file of a terabyte": endless,
}


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_not_regular_files(kind: str, dataset: Any, some_of: Any) -> None:
    for case, make in some_of(NOT_FILES, 2).items():
        data = dataset()
        add_odd(data, of_size(256, 256))
        odd = data.folder / kind / "odd.png"
        odd.unlink()
        make(odd)
        fault = "data set: folder, pipe, device or dangling link in place of a file"
        data.try_embed(fault, f"{case} in {kind}", naming=["odd"])


def test_image_without_permission_to_read(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset()
    odd = add_odd(data, of_size(256, 256))
    before = os.open

    def refuse(path: Any, *args: Any, **options: Any) -> Any:
        if path == str(odd):
            raise PermissionError(13, "Permission denied", path)
        return before(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)  # root may read everything
    data.try_embed("image: no permission to read", "permission denied")
