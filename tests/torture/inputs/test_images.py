"""Image files as people have them: other modes, other formats, damaged, lying, or no images at all."""

import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

Made = tuple[bytes, np.ndarray | None, float]
"""A file's bytes, its pixels as RGB (None where it must be refused), and how far off they may be."""

LOSSY = 3.0


def rgb(draw: Any, height: int = 256, width: int = 256) -> np.ndarray:
    return draw.picture(7, height, width)


def packed(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def tiff(values: np.ndarray, **options: Any) -> bytes:
    file = BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def gray(values: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(values).convert("L"))


def thrice(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=-1)


def transparent(values: np.ndarray, mode: str = "RGBA") -> tuple[Image.Image, np.ndarray]:
    """The left half can be seen through wholly, where white shows."""
    picture = Image.fromarray(values).convert(mode)
    alpha = np.full(values.shape[:2], 255, np.uint8)
    alpha[:, : values.shape[1] // 2] = 0
    picture.putalpha(Image.fromarray(alpha))
    expected = np.asarray(Image.fromarray(values).convert(mode).convert("RGB")).copy()
    expected[:, : values.shape[1] // 2] = 255
    return picture, expected


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
    exif[0x0112] = 6  # to be turned by a quarter: masks are not
    return packed(Image.fromarray(values), "JPEG", quality=95, exif=exif)


def with_gamma(values: np.ndarray) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", 45455))
    info.add_text("Comment", "x" * 100)
    return packed(Image.fromarray(values), "PNG", pnginfo=info)


def palette(values: np.ndarray, **options: Any) -> Made:
    picture = Image.fromarray(values).quantize(16)
    return packed(picture, "PNG", **options), np.asarray(picture.convert("RGB")), 0


def palette_on_white(values: np.ndarray) -> Made:
    picture = Image.fromarray(values).quantize(16)
    expected = np.asarray(picture.convert("RGB")).copy()
    expected[np.asarray(picture) == 3] = 255
    return packed(picture, "PNG", transparency=3), expected, 0


def animated(values: np.ndarray, kind: str) -> bytes:
    frames = [Image.fromarray(values), Image.fromarray(255 - values)]
    return packed(frames[0], kind, save_all=True, append_images=frames[1:])


MODES: dict[str, Callable[[np.ndarray], Made]] = {
    "RGB PNG": lambda v: (packed(Image.fromarray(v), "PNG"), v, 0),
    "gray PNG": lambda v: (packed(Image.fromarray(gray(v)), "PNG"), thrice(gray(v)), 0),
    "one-bit PNG": lambda v: (
        packed(Image.fromarray(gray(v) > 90), "PNG"),
        thrice((gray(v) > 90).astype(np.uint8) * 255),
        0,
    ),
    "gray PNG with transparency": lambda v: (packed((t := transparent(v, "L"))[0], "PNG"), t[1], 0),
    "palette PNG": palette,
    "palette PNG with a transparent colour": palette_on_white,
    "RGBA PNG": lambda v: (packed((t := transparent(v))[0], "PNG"), t[1], 0),
    "RGBA TIFF": lambda v: (packed((t := transparent(v))[0], "TIFF"), t[1], 0),
    "interlaced PNG": lambda v: (interlaced(v), v, 0),
    "PNG with gamma": lambda v: (with_gamma(v), v, 0),
    "two-bit gray PNG": lambda v: (
        png_by_hand(256, 256, 2, 0, png_rows(np.full((256, 64), 0b00011011, np.uint8))),
        thrice(np.tile(np.array([0, 85, 170, 255], np.uint8), (256, 64))),
        0,
    ),
    "animated PNG": lambda v: (animated(v, "PNG"), None, 0),
    "16-bit gray PNG": lambda v: (packed(Image.fromarray(gray(v).astype(np.uint16) * 257), "PNG"), None, 0),
    "16-bit RGB PNG": lambda v: (png_by_hand(256, 256, 16, 2, png_rows(v.astype(">u2") * 257)), None, 0),
    "JPEG": lambda v: (packed(Image.fromarray(v), "JPEG", quality=95), v, LOSSY),
    "progressive JPEG": lambda v: (packed(Image.fromarray(v), "JPEG", quality=95, progressive=True), v, LOSSY),
    "gray JPEG": lambda v: (packed(Image.fromarray(gray(v)), "JPEG", quality=95), thrice(gray(v)), LOSSY),
    "JPEG turned by EXIF": lambda v: (with_exif(v), v, LOSSY),
    "CMYK JPEG": lambda v: (packed(Image.fromarray(v).convert("CMYK"), "JPEG", quality=95), None, 0),
    "CMYK TIFF": lambda v: (packed(Image.fromarray(v).convert("CMYK"), "TIFF"), None, 0),
    "LAB TIFF": lambda v: (tiff(v, photometric="cielab"), None, 0),
    "YCbCr TIFF": lambda v: (packed(Image.fromarray(v), "TIFF", compression="jpeg", quality=95), v, LOSSY),
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
        f"TIFF packed by {name}": lambda v, name=name: (packed(Image.fromarray(v), "TIFF", compression=name), v, 0)
        for name in ("tiff_lzw", "packbits", "tiff_adobe_deflate", "tiff_deflate", "zstd", "lzma")
    },
    "GIF": lambda v: (packed(Image.fromarray(v), "GIF"), None, 0),
    "animated GIF": lambda v: (animated(v, "GIF"), None, 0),
    "WebP": lambda v: (packed(Image.fromarray(v), "WEBP", lossless=True), None, 0),
    "animated WebP": lambda v: (animated(v, "WEBP"), None, 0),
    "BMP": lambda v: (packed(Image.fromarray(v), "BMP"), None, 0),
    "PPM": lambda v: (packed(Image.fromarray(v), "PPM"), None, 0),
    "JPEG 2000": lambda v: (packed(Image.fromarray(v), "JPEG2000"), None, 0),
    "ICO": lambda v: (packed(Image.fromarray(v), "ICO", sizes=[(256, 256)]), None, 0),
    "several JPEGs in one file": lambda v: (
        packed(Image.fromarray(v), "MPO", save_all=True, append_images=[Image.fromarray(255 - v)]),
        v,
        LOSSY,
    ),
    "PNG with something behind it": lambda v: (packed(Image.fromarray(v), "PNG") + b"<script>" * 99, v, 0),
}


def pyramid(values: np.ndarray) -> bytes:
    file = BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(values, subifds=1, tile=(64, 64), photometric="rgb")
        writer.write(values[::2, ::2].copy(), tile=(64, 64), photometric="rgb", subfiletype=1)
        writer.write(values[::4, ::4].copy(), tile=(64, 64), photometric="rgb")
    return file.getvalue()


def of_size(height: int, width: int) -> bytes:
    return packed(Image.fromarray(np.full((height, width, 3), 99, np.uint8)), "PNG")


def changed(data: bytes, at: int, to: bytes) -> bytes:
    return data[:at] + to + data[at + len(to) :]


def with_size(width: int, height: int) -> bytes:
    """A PNG whose header says so, with the pixels of 256 x 256 in it, and its CRC right."""
    return png_by_hand(width, height, 8, 2, png_rows(np.full((256, 256, 3), 99, np.uint8)))


def tiff_bomb() -> bytes:
    """A small file that unpacks to 40,000 x 40,000 pixels."""
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
    "web page of a login": b"<!DOCTYPE html><html><body>Sign in</body></html>",
    "zip": b"PK\x03\x04" + bytes(400),
    "array of NumPy": b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (256, 256, 3), }"
    + b" " * 99,
    "pickle": b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.",
    "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
    "only the PNG signature": b"\x89PNG\r\n\x1a\n",
    "PNG without a header": b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""),
    "PNG of width 0": with_size(0, 256),
    "PNG of height 0": with_size(256, 0),
    "PNG of 2**31 - 1 pixels a side": with_size(2**31 - 1, 2**31 - 1),
    "PNG bomb of 60,000 pixels a side": with_size(60_000, 60_000),
    "PNG that says it is taller than it is": with_size(256, 300),
    "PNG with a wrong CRC": changed(of_size(256, 256), 40, b"\0\0\0\0"),
    "PNG with an odd depth": png_by_hand(256, 256, 3, 0, bytes(9999)),
    "PNG of 16 bits that says it is of 7": png_by_hand(256, 256, 7, 2, bytes(9999)),
    "PNG with a huge chunk length": b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffIHDR" + bytes(100),
    "PNG text bomb": of_size(256, 256)[:33]
    + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26)))
    + of_size(256, 256)[33:-50],
    "only the JPEG signature": b"\xff\xd8\xff\xe0",
    "JPEG without pixels": b"\xff\xd8\xff\xd9",
    "TIFF whose directory lies beyond its end": b"II*\0\xff\xff\xff\x7f",
    "TIFF whose directory points to itself": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    "TIFF bomb of 40,000 pixels a side": tiff_bomb(),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "EPS that would run": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch pwned) run\n",
    "1 x 5000 pixels": of_size(1, 5000),
    "5000 x 1 pixels": of_size(5000, 1),
}
"""Bytes that are no image that can be used, under the name of one."""

SIZES = {
    "1 x 1": (1, 1),
    "1 x 9": (1, 9),
    "9 x 1": (9, 1),
    "3 x 700": (3, 700),
    "700 x 3": (700, 3),
    "511 x 255": (511, 255),
}


def test_modes_and_formats(trial: Any, slides: Any, some_of: Any, draw: Any) -> None:
    for case, make in some_of(MODES, 6).items():
        data = slides()
        content, expected, tolerance = make(rgb(draw))
        given(data, draw, content, case)
        right = None if expected is None else lambda _, d=data, e=expected, t=tolerance: d.pixels("odd", e, t)
        trial(
            "image of an odd mode or format",
            case,
            data.embed,
            naming=["odd."],
            right=right,
            kept=data.sound_kept,
            untouched=data.folder,
        )


def given(data: Any, draw: Any, content: bytes, case: str = "", shape: tuple[int, int] = (256, 256)) -> Path:
    """Put an odd image beside the sound ones, under a suffix that fits, with a mask."""
    kind = "tif" if "TIFF" in case else "jpg" if "JPEG" in case and "2000" not in case else "png"
    data.image(f"odd.{kind}").write_bytes(content)
    Image.fromarray(draw.nuclei(*shape)).save(data.mask("odd.png"))
    return data.image(f"odd.{kind}")


def test_what_is_no_image(trial: Any, slides: Any, some_of: Any, draw: Any) -> None:
    for case, content in some_of(WRONG, 4).items():
        data = slides()
        given(data, draw, content)
        trial(
            "image that is none, or lies",
            case,
            data.embed,
            naming=["odd."],
            kept=data.sound_kept,
            untouched=data.folder,
        )


def test_sizes(trial: Any, slides: Any, some_of: Any, draw: Any) -> None:
    for case, size in some_of(SIZES, 1).items():
        data = slides()
        given(data, draw, of_size(*size), shape=size)
        trial(
            "image of an odd size",
            case,
            data.embed,
            naming=["odd."],
            right=lambda _, d=data, size=size: wrongly_prepared(d, size),
            kept=data.sound_kept,
        )


def wrongly_prepared(data: Any, size: tuple[int, int]) -> str:
    store = data.store()
    found = store.read_samples([store.row_of("odd")])[0]
    seen = ~found.ignore
    off = seen.sum() == 0 or (found.image[seen] != 99).any() or found.image[~seen].any()
    return f"prepared otherwise: {found.size}" if off or found.size != size else ""


def sound_files(draw: Any) -> dict[str, tuple[bytes, float]]:
    values = rgb(draw)
    return {
        "png": (packed(Image.fromarray(values), "PNG"), 0),
        "jpg": (packed(Image.fromarray(values), "JPEG", quality=95), LOSSY),
        "tif": (packed(Image.fromarray(values), "TIFF", compression="tiff_lzw"), 0),
        "tiff": (tiff(values, tile=(64, 64), photometric="rgb", compression="zlib"), 0),
    }


def test_truncated_at_random(trial: Any, slides: Any, draw: Any, profile: Any) -> None:
    """All but the last bytes of a JPEG or TIFF may be there: then the pixels are, and they are the right ones."""
    for number in range(profile.trials(short=2, long=60)):
        random = profile.random(1, number)
        kind, (content, tolerance) = list(sound_files(draw).items())[number % 4]
        data = slides()
        cut = int(random.integers(1, len(content)))
        data.image(f"odd.{kind}").write_bytes(content[:cut])
        Image.fromarray(draw.nuclei()).save(data.mask("odd.png"))
        right = lambda _, d=data, t=tolerance: d.pixels("odd", rgb(draw), t)  # noqa: E731
        trial(
            "image cut short",
            f"{kind} cut at {cut} of {len(content)}",
            data.embed,
            naming=["odd."],
            right=right,
            kept=data.sound_kept,
        )


def test_flipped_bytes(trial: Any, slides: Any, draw: Any, profile: Any) -> None:
    """JPEG, and TIFF without checksums, cannot know that a pixel is another: then it is an image of that size."""
    for number in range(profile.trials(short=2, long=80)):
        random = profile.random(2, number)
        kind, (content, _) = list(sound_files(draw).items())[number % 4]
        data = slides()
        spoilt = bytearray(content)
        for at in random.integers(0, len(content), int(random.integers(1, 5))):
            spoilt[at] ^= int(random.integers(1, 256))
        data.image(f"odd.{kind}").write_bytes(bytes(spoilt))
        Image.fromarray(draw.nuclei()).save(data.mask("odd.png"))
        lossless = lambda _, d=data: d.pixels("odd", rgb(draw))  # noqa: E731
        right = lossless if kind == "png" else lambda _: ""
        trial(
            "image with changed bytes",
            f"{kind}, trial {number}",
            data.embed,
            naming=["odd."],
            right=right,
            kept=data.sound_kept,
        )


def a_folder(file: Path) -> None:
    file.mkdir()


def dangling(file: Path) -> None:
    file.symlink_to(file.with_name("nothing"))


def a_loop(file: Path) -> None:
    file.symlink_to(file.name)


def a_pipe(file: Path) -> None:
    os.mkfifo(file)


def a_device(file: Path) -> None:
    file.symlink_to("/dev/zero")


def a_terminal(file: Path) -> None:
    file.symlink_to("/dev/tty")


def a_process_file(file: Path) -> None:
    file.symlink_to("/proc/self/mem")


def a_socket(file: Path) -> None:
    import socket

    before = Path.cwd()
    os.chdir(file.parent)  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(file.name)
    os.chdir(before)


def endless(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(1 << 40)


NO_FILES = (a_folder, dangling, a_loop, a_pipe, a_device, a_terminal, a_process_file, a_socket, endless)


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_no_files_at_all(kind: str, trial: Any, slides: Any, some_of: Any, draw: Any) -> None:
    for make in some_of({one.__name__: one for one in NO_FILES}, 2).values():
        data = slides()
        given(data, draw, of_size(256, 256))
        odd = data.folder / kind / "odd.png"
        odd.unlink()
        make(odd)
        naming = ["odd", "odd.png"]
        trial(
            "folder, pipe, device or dangling link in place of a file",
            f"{make.__name__} in {kind}",
            data.embed,
            naming=naming,
            kept=data.sound_kept,
            seconds=15,
            untouched=data.folder,
        )


def test_an_image_that_may_not_be_read(trial: Any, slides: Any, draw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = slides()
    odd = given(data, draw, of_size(256, 256))
    before = os.open

    def refused(path: Any, *args: Any, **options: Any) -> Any:
        if path == str(odd):
            raise PermissionError(13, "Permission denied", path)
        return before(path, *args, **options)

    monkeypatch.setattr(os, "open", refused)  # root may read everything
    trial("image that may not be read", "permission denied", data.embed, naming=["odd."], kept=data.sound_kept)
