"""Mask files of unusual types and sizes; damaged, duplicate and missing ones; other file formats."""

import json
import pickle
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from nucseg.data.masks import MAX_KEPT_ID
from nucseg.nuclei.polygons import outline
from tests.torture.inputs.drawing import encode, nuclei, picture, tiff

MaskFile = tuple[str, bytes, np.ndarray | None]
"""Suffix and bytes of a file, and its instances; None if it must be refused."""


def numpy_file(values: np.ndarray) -> bytes:
    file = BytesIO()
    np.save(file, values, allow_pickle=True)
    return file.getvalue()


def byte(ids: np.ndarray) -> np.ndarray:
    return ids.astype(np.uint8)


def binary(ids: np.ndarray, value: int = 255) -> np.ndarray:
    return (byte(ids) > 0).astype(np.uint8) * np.uint8(value)


def colours(ids: np.ndarray) -> np.ndarray:
    return np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)[ids]


def with_alpha(values: np.ndarray) -> np.ndarray:
    return np.dstack([values, values, values, np.full_like(values, 255)])


def palette(ids: np.ndarray) -> bytes:
    image = Image.fromarray(byte(ids) * 2, "P")
    image.putpalette([9, 9, 9] * 256)  # all colours are equal: the index counts
    return encode(image)


def in_two_pieces(ids: np.ndarray) -> np.ndarray:
    """Nucleus 1 in two pieces, as a fold of the tissue can leave it."""
    split = ids.copy()
    split[200:210, 200:210] = 1
    return split


def relabelled(ids: np.ndarray, *numbers: int) -> np.ndarray:
    return np.array([0, *numbers])[ids]


def class_map(ids: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: len(ids), : len(ids)]
    return ((x // 4 % 2) * (y // 4 % 2) * (1 + x // 8 % 2)).astype(np.uint8)


def all_different(ids: np.ndarray) -> np.ndarray:
    return np.arange(ids.size, dtype=np.int32).reshape(ids.shape) + 100_000


MASKS: dict[str, Callable[[np.ndarray], MaskFile]] = {
    "one-bit PNG": lambda m: ("png", encode(m > 0), m),
    "binary of 0 and 255": lambda m: ("png", encode(binary(m)), m),
    "binary of 0 and 1": lambda m: ("png", encode(binary(m, 1)), m),
    "binary TIFF": lambda m: ("tif", tiff(binary(m)), m),
    "boolean TIFF": lambda m: ("tif", tiff(m > 0), m),
    "white-is-zero TIFF of ids": lambda m: ("tif", tiff(byte(m), photometric="miniswhite"), m),
    "16-bit PNG": lambda m: ("png", encode(m), m),
    "16-bit big-endian TIFF": lambda m: ("tif", tiff(m, byteorder=">"), m),
    "32-bit TIFF": lambda m: ("tif", tiff(m.astype(np.int32)), m),
    "unsigned 32-bit TIFF": lambda m: ("tif", tiff(m.astype(np.uint32)), m),
    "64-bit TIFF": lambda m: ("tif", tiff(m.astype(np.int64)), m),
    "BigTIFF": lambda m: ("tiff", tiff(m, bigtiff=True), m),
    "tiled TIFF": lambda m: ("tif", tiff(m, tile=(64, 64), compression="zlib"), m),
    "palette": lambda m: ("png", palette(m), m * 2),
    "RGB of equal channels": lambda m: ("png", encode(np.dstack([byte(m)] * 3) * np.uint8(5)), m * 5),
    "RGBA of equal channels": lambda m: ("png", encode(with_alpha(byte(m) * np.uint8(5))), m * 5),
    "gray with transparency": lambda m: ("png", encode(Image.fromarray(byte(m) * np.uint8(5)).convert("LA")), m * 5),
    "all zeros": lambda m: ("png", encode(m * 0), m * 0),
    "one giant nucleus": lambda m: ("png", encode(m * 0 + 7), None),
    "all white": lambda m: ("png", encode(byte(m) * 0 + np.uint8(255)), None),
    "inverted": lambda m: ("png", encode(~binary(m)), None),
    "255 as background": lambda m: ("png", encode(np.where(m > 0, m, 255).astype(np.uint8)), None),
    "16-bit binary of 0 and 1": lambda m: ("png", encode((m > 0).astype(np.uint16)), m),
    "16-bit binary of 0 and 65535": lambda m: ("tif", tiff((m > 0).astype(np.uint16) * np.uint16(65535)), m),
    "binary of 0 and 128": lambda m: ("png", encode(binary(m, 128)), m),
    "binary of 1 and 2": lambda m: ("png", encode(binary(m, 1) + np.uint8(1)), m),
    "bitmap": lambda m: ("bmp", encode(byte(m), "BMP"), m),
    "lossless WebP": lambda m: ("webp", encode(np.dstack([byte(m)] * 3), "WEBP", lossless=True), m),
    "lossy WebP": lambda m: ("webp", encode(np.dstack([byte(m)] * 3), "WEBP"), None),
    "a mask in the alpha channel": lambda m: ("png", encode(np.dstack([binary(m) * 0, binary(m)])), m),
    "quantised": lambda m: ("png", encode(Image.fromarray(binary(m)).convert("RGB").quantize(2)), m),
    "class map of four nuclei": lambda m: ("png", encode(byte(np.where(m == 2, 2, in_two_pieces(m) > 0))), None),
    "ids with gaps": lambda m: (
        "png",
        encode(relabelled(m, 5, 900, 65535).astype(np.uint16)),
        relabelled(m, 5, 900, 65535),
    ),
    "a nucleus in two pieces": lambda m: ("png", encode(in_two_pieces(m)), in_two_pieces(m)),
    "more than 65,535 nuclei": lambda m: ("tif", tiff(all_different(m)), all_different(m)),
    "ids up to 2**31 - 1": lambda m: (
        "tif",
        tiff(relabelled(m, 1, 2, 2**31 - 1).astype(np.uint32)),
        m,
    ),
    "ids beyond 2**31": lambda m: ("tif", tiff(relabelled(m, 1, 2, 2**32 - 1).astype(np.uint32)), m),
    "ids beyond 2**63": lambda m: ("tif", tiff(np.array([0, 1, 2, 2**64 - 1], np.uint64)[m]), m),
    "GeoJSON": lambda m: ("geojson", geojson(m), m),
    "GeoJSON of another place": lambda m: ("geojson", geojson(m).replace(b"[[", b"[[1e6, 1e6], ["), None),
    "truncated GeoJSON": lambda m: ("geojson", geojson(m)[:-9], None),
    "negative ids": lambda m: ("tif", tiff(relabelled(m, 1, -2, 3).astype(np.int16)), None),
    "negative bytes": lambda m: ("tif", tiff(relabelled(m, 1, -2, 3).astype(np.int8)), None),
    "class map": lambda m: ("png", encode(class_map(m)), None),
    "colours": lambda m: ("png", encode(colours(m)), None),
    "the image itself": lambda m: ("png", encode(np.dstack([m * 3, m, m + 9]).astype(np.uint8)), None),
    "floats": lambda m: ("tif", tiff(m.astype(np.float32)), None),
    "NaN": lambda m: ("tif", tiff(np.where(m > 0, np.nan, 0).astype(np.float32)), None),
    "double floats": lambda m: ("tif", tiff(m.astype(np.float64)), None),
    "complex numbers": lambda m: ("tif", tiff(m.astype(np.complex64)), None),
    "two channels": lambda m: (
        "tif",
        tiff(np.dstack([byte(m), byte(m) * 0 + 1]), photometric="minisblack", planarconfig="contig"),
        None,
    ),
    "two pages": lambda m: ("tif", tiff(np.stack([m, m])), None),
    "a page for each nucleus": lambda m: ("tif", tiff(np.stack([m == 1, m == 2, m == 3])), None),
    "JPEG": lambda m: ("jpg", jpeg(m), None),
    "JPEG named PNG": lambda m: ("png", jpeg(m), None),
    "another size": lambda m: ("png", encode(m[:200, :200].copy()), None),
    "width and height swapped": lambda m: ("png", encode(m[:, :200].copy()), None),
    "one pixel": lambda m: ("png", encode(m[:1, :1].copy()), None),
    "truncated": lambda m: ("png", encode(m)[:-90], None),
    "truncated TIFF": lambda m: ("tif", tiff(m)[:5000], None),
    "empty file": lambda m: ("png", b"", None),
    "text": lambda m: ("png", b"0 0 0 1\n" * 99, None),
    "NumPy array": lambda m: ("npy", numpy_file(m), None),
    "NumPy array named PNG": lambda m: ("png", numpy_file(m), None),
    "NumPy array of pickled objects": lambda m: ("npy", numpy_file(np.array([{"a": 1}], object)), None),
    "pickled objects named PNG": lambda m: ("png", numpy_file(np.array([{"a": 1}], object)), None),
    "npz": lambda m: ("npz", zipped(m), None),
    "mat file": lambda m: ("mat", b"MATLAB 5.0 MAT-file" + bytes(109) + b"\x00\x01IM" + bytes(99), None),
    "pickle": lambda m: ("png", pickle.dumps(m), None),
    "no mask": lambda m: ("txt", b"", None),
}


def geojson(ids: np.ndarray) -> bytes:
    rings = [outline(ids == number) for number in (1, 2, 3)]
    features = [{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": found}} for found in rings]
    return json.dumps(features).encode()


def jpeg(ids: np.ndarray) -> bytes:
    return encode(binary(ids), "JPEG")


def zipped(ids: np.ndarray) -> bytes:
    file = BytesIO()
    np.savez(file, ids)
    return file.getvalue()


def test_types(dataset: Any, some_of: Any) -> None:
    for case, make in some_of(MASKS, 5).items():
        data = dataset()
        suffix, content, expected = make(nuclei())
        data.add("odd", picture(7), content)
        data.mask("odd.png").rename(data.mask(f"odd.{suffix}"))
        check = None if expected is None else partial(ids_problem, data, expected.astype(np.int32))
        data.try_embed("mask: unusual type" if check else "mask: invalid", case, check=check)


def ids_problem(data: Any, expected: np.ndarray, _: Any) -> str:
    return str(data.ids("odd", expected))


def test_masks_that_do_not_match_their_images(dataset: Any) -> None:
    fault = "mask: duplicate, unused or of another size"
    data = dataset()
    data.add("odd", picture(7))
    data.image("odd.png").unlink()
    data.try_embed(fault, "no image", check=lambda ended: "" if "odd.png" in ended.err else "there was no message")

    data = dataset()
    data.add("odd", picture(7))
    Image.fromarray(nuclei()).save(data.mask("odd.tif"))
    data.try_embed(fault, "two masks for an image", naming=["odd.png"])

    for case, content in {"of another size": encode(np.zeros((9, 9), np.uint8)), "that is text": b"text"}.items():
        data = dataset()
        data.add("odd", picture(7))
        (data.folder / "ignore").mkdir()
        (data.folder / "ignore" / "odd.png").write_bytes(content)
        data.try_embed(fault, f"ignore mask {case}", naming=["ignore/odd.png"])


def test_random_masks_are_read_exactly_or_refused(dataset: Any, profile: Any) -> None:
    """All integers are instance ids, in their order; a mask of two values would be binary, but here there is a 2."""
    for number in range(profile.trials(short=2, long=60)):
        random = profile.random(3, number)
        kind = random.choice(["uint8", "uint16", "int16", "int32", "uint32"])
        info = np.iinfo(kind)
        high = int(random.choice([2, 4, 255, 60_000, info.max]))
        values = random.integers(max(info.min, -2) if random.random() < 0.2 else 0, min(high, info.max), (8, 8), kind)
        values[0, :2] = 2, 0
        mask = np.kron(values, np.ones((32, 32), values.dtype))
        data = dataset()
        data.add("odd", picture(7), tiff(mask, compression=random.choice([None, "zlib"])))
        data.mask("odd.png").rename(data.mask("odd.tif"))
        ids = mask if mask.max() <= MAX_KEPT_ID else np.unique(mask, return_inverse=True)[1].reshape(mask.shape)
        check = partial(ids_problem, data, ids.astype(np.int32)) if mask.min() >= 0 else None
        data.try_embed("mask: random values", f"{kind}, trial {number}", check=check)
