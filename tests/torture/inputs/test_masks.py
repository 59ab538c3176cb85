"""Mask files as people have them: other types and sizes, damaged, doubled, missing, in other containers."""

import pickle
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import tifffile
from PIL import Image

Made = tuple[str, bytes, np.ndarray | None]
"""Suffix and bytes of the file, and the instances that are in it; None where it must be refused."""


def png(values: np.ndarray, mode: str | None = None) -> bytes:
    file = BytesIO()
    picture = Image.fromarray(values)
    (picture.convert(mode) if mode else picture).save(file, "PNG")
    return file.getvalue()


def tiff(values: np.ndarray, **options: Any) -> bytes:
    file = BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


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
    picture = Image.fromarray(byte(ids) * 2, "P")
    picture.putpalette([9, 9, 9] * 256)  # every colour is the same: what counts is the number
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def apart(ids: np.ndarray) -> np.ndarray:
    """Nucleus 1 in two pieces, as a fold of the tissue leaves them."""
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


MASKS: dict[str, Callable[[np.ndarray], Made]] = {
    "one-bit PNG": lambda m: ("png", png(m > 0), m),
    "binary of 0 and 255": lambda m: ("png", png(binary(m)), m),
    "binary of 0 and 1": lambda m: ("png", png(binary(m, 1)), m),
    "binary TIFF": lambda m: ("tif", tiff(binary(m)), m),
    "boolean TIFF": lambda m: ("tif", tiff(m > 0), m),
    "white-is-zero TIFF of ids": lambda m: ("tif", tiff(byte(m), photometric="miniswhite"), m),
    "16-bit PNG": lambda m: ("png", png(m), m),
    "16-bit big-endian TIFF": lambda m: ("tif", tiff(m, byteorder=">"), m),
    "32-bit TIFF": lambda m: ("tif", tiff(m.astype(np.int32)), m),
    "unsigned 32-bit TIFF": lambda m: ("tif", tiff(m.astype(np.uint32)), m),
    "64-bit TIFF": lambda m: ("tif", tiff(m.astype(np.int64)), m),
    "BigTIFF": lambda m: ("tiff", tiff(m, bigtiff=True), m),
    "tiled TIFF": lambda m: ("tif", tiff(m, tile=(64, 64), compression="zlib"), m),
    "palette": lambda m: ("png", palette(m), m * 2),
    "RGB of equal channels": lambda m: ("png", png(np.dstack([byte(m)] * 3) * np.uint8(5)), m * 5),
    "RGBA of equal channels": lambda m: ("png", png(with_alpha(byte(m) * np.uint8(5))), m * 5),
    "gray with transparency": lambda m: ("png", png(byte(m) * np.uint8(5), "LA"), m * 5),
    "all zeros": lambda m: ("png", png(m * 0), m * 0),
    "one giant nucleus": lambda m: ("png", png(m * 0 + 7), m * 0 + 7),
    "white all over": lambda m: ("png", png(byte(m) * 0 + np.uint8(255)), m * 0 + 1),
    "ids with gaps": lambda m: (
        "png",
        png(relabelled(m, 5, 900, 65535).astype(np.uint16)),
        relabelled(m, 5, 900, 65535),
    ),
    "a nucleus in two pieces": lambda m: ("png", png(apart(m)), apart(m)),
    "more than 65,535 nuclei": lambda m: ("tif", tiff(all_different(m)), all_different(m)),
    "ids up to 2**31 - 1": lambda m: (
        "tif",
        tiff(relabelled(m, 1, 2, 2**31 - 1).astype(np.uint32)),
        relabelled(m, 1, 2, 2**31 - 1),
    ),
    "ids beyond 2**31": lambda m: ("tif", tiff(relabelled(m, 1, 2, 2**32 - 1).astype(np.uint32)), None),
    "ids beyond 2**63": lambda m: ("tif", tiff(np.array([0, 1, 2, 2**64 - 1], np.uint64)[m]), None),
    "negative ids": lambda m: ("tif", tiff(relabelled(m, 1, -2, 3).astype(np.int16)), None),
    "negative bytes": lambda m: ("tif", tiff(relabelled(m, 1, -2, 3).astype(np.int8)), None),
    "class map": lambda m: ("png", png(class_map(m)), None),
    "colours": lambda m: ("png", png(colours(m)), None),
    "the image itself": lambda m: ("png", png(np.dstack([m * 3, m, m + 9]).astype(np.uint8)), None),
    "floats": lambda m: ("tif", tiff(m.astype(np.float32)), None),
    "floats that are no numbers": lambda m: ("tif", tiff(np.where(m > 0, np.nan, 0).astype(np.float32)), None),
    "double floats": lambda m: ("tif", tiff(m.astype(np.float64)), None),
    "complex numbers": lambda m: ("tif", tiff(m.astype(np.complex64)), None),
    "two channels": lambda m: (
        "tif",
        tiff(np.dstack([byte(m), byte(m) * 0 + 1]), photometric="minisblack", planarconfig="contig"),
        None,
    ),
    "two pages": lambda m: ("tif", tiff(np.stack([m, m])), None),
    "a stack for each nucleus": lambda m: ("tif", tiff(np.stack([m == 1, m == 2, m == 3])), None),
    "JPEG": lambda m: ("jpg", jpeg(m), None),
    "JPEG called PNG": lambda m: ("png", jpeg(m), None),
    "another size": lambda m: ("png", png(m[:200, :200].copy()), None),
    "width and height swapped": lambda m: ("png", png(m[:, :200].copy()), None),
    "one pixel": lambda m: ("png", png(m[:1, :1].copy()), None),
    "cut short": lambda m: ("png", png(m)[:-90], None),
    "TIFF cut short": lambda m: ("tif", tiff(m)[:5000], None),
    "empty file": lambda m: ("png", b"", None),
    "text": lambda m: ("png", b"0 0 0 1\n" * 99, None),
    "array of NumPy": lambda m: ("npy", numpy_file(m), None),
    "array of NumPy called PNG": lambda m: ("png", numpy_file(m), None),
    "pickled objects in an array of NumPy": lambda m: ("npy", numpy_file(np.array([{"a": 1}], object)), None),
    "pickled objects called PNG": lambda m: ("png", numpy_file(np.array([{"a": 1}], object)), None),
    "npz": lambda m: ("npz", zipped(m), None),
    "mat file": lambda m: ("mat", b"MATLAB 5.0 MAT-file" + bytes(109) + b"\x00\x01IM" + bytes(99), None),
    "pickle": lambda m: ("png", pickle.dumps(m), None),
    "no mask at all": lambda m: ("txt", b"", None),
}


def jpeg(ids: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(binary(ids)).save(file, "JPEG")
    return file.getvalue()


def zipped(ids: np.ndarray) -> bytes:
    file = BytesIO()
    np.savez(file, ids)
    return file.getvalue()


def test_masks_of_all_kinds(trial: Any, slides: Any, some_of: Any, draw: Any) -> None:
    for case, make in some_of(MASKS, 6).items():
        data, ids = slides(), draw.nuclei()
        suffix, content, expected = make(ids)
        Image.fromarray(draw.picture(7)).save(data.image("odd.png"))
        data.mask(f"odd.{suffix}").write_bytes(content)
        right = None if expected is None else partial(same_ids, data, expected.astype(np.int32))
        fault = "mask of an odd type" if right else "mask that cannot be one"
        trial(fault, case, data.embed, naming=["odd."], right=right, kept=data.sound_kept, untouched=data.folder)


def same_ids(data: Any, expected: np.ndarray, _: Any) -> str:
    return str(data.ids("odd", expected))


def test_masks_that_do_not_match_their_images(trial: Any, slides: Any, draw: Any) -> None:
    fault = "masks doubled, spare or of another size"
    data = slides()
    Image.fromarray(draw.nuclei()).save(data.mask("odd.png"))
    trial(
        fault,
        "mask without an image",
        data.embed,
        kept=data.sound_kept,
        right=lambda ended: "" if "odd.png" in ended.err else "nobody was told",
    )

    data = slides()
    Image.fromarray(draw.picture(7)).save(data.image("odd.png"))
    for suffix in ("png", "tif"):
        Image.fromarray(draw.nuclei()).save(data.mask(f"odd.{suffix}"))
    trial(fault, "two masks for an image", data.embed, naming=["odd.png"], kept=data.sound_kept)

    for case, content in {"of another size": png(np.zeros((9, 9), np.uint8)), "that is text": b"text"}.items():
        data = slides()
        (data.folder / "ignore").mkdir()
        Image.fromarray(draw.picture(7)).save(data.image("odd.png"))
        Image.fromarray(draw.nuclei()).save(data.mask("odd.png"))
        (data.folder / "ignore" / "odd.png").write_bytes(content)
        trial(fault, f"mask of what to ignore {case}", data.embed, naming=["ignore/odd.png"], kept=data.sound_kept)


def test_random_masks_are_read_as_they_are_or_refused(trial: Any, slides: Any, draw: Any, profile: Any) -> None:
    """Any integers, in squares: kept as they are; but 0 with 1, or with 255, in a byte is binary."""
    for number in range(profile.trials(short=2, long=60)):
        random = profile.random(3, number)
        kind = random.choice(["uint8", "uint16", "int16", "int32", "uint32"])
        info = np.iinfo(kind)
        high = int(random.choice([2, 4, 255, 60_000, info.max]))
        values = random.integers(max(info.min, -2) if random.random() < 0.2 else 0, min(high, info.max), (8, 8), kind)
        values[0, :2] = 2, 0
        mask = np.kron(values, np.ones((32, 32), values.dtype))
        data = slides()
        Image.fromarray(draw.picture(7)).save(data.image("odd.png"))
        data.mask("odd.tif").write_bytes(tiff(mask, compression=random.choice([None, "zlib"])))
        right = partial(same_ids, data, mask.astype(np.int32)) if mask.min() >= 0 else None
        trial("random mask", f"{kind}, trial {number}", data.embed, naming=["odd."], right=right, kept=data.sound_kept)
