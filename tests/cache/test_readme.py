"""The format's README: its program, which does not import nucseg, agrees with the package on every row."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from nucseg_cache import FORMAT, FORMATS
from tests.cache.drawn_store import make_embedding, make_embeddings, make_sample

README = Path(__file__).resolve().parents[2] / "cache" / "README.md"


@pytest.fixture(scope="module")
def program() -> dict[str, Any]:
    """What the README's Python block defines."""
    (block,) = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert "nucseg" not in block
    defined: dict[str, Any] = {}
    exec(compile(block, str(README), "exec"), defined)
    return defined


def test_the_program_reads_and_verifies_embeddings(two_blocks, store_path, key, program) -> None:
    rows = [0, 5, 63, 64, 66]
    two_blocks.embeddings(key).write(rows, make_embeddings(*rows))

    for row in rows:
        np.testing.assert_array_equal(program["embedding"](store_path, key.hash, "identity", row), make_embedding(row))
    stained = two_blocks.embeddings(key, "stain-1", described={"seed": "0"}, images=True)
    stained.write([5], make_embeddings(9), np.full((1, 8, 8, 3), 7, np.uint8))
    np.testing.assert_array_equal(program["embedding"](store_path, key.hash, "stain-1", 5), make_embedding(9))
    values = store_path / "embeddings" / key.hash / "identity" / "values" / "c"
    (values / "5/0/0/0").rename(values / "0/0/0/0")
    with pytest.raises(ValueError, match="row 0 is damaged"):
        program["embedding"](store_path, key.hash, "identity", 0)


def test_the_program_reads_and_verifies_samples(two_blocks, store_path, program) -> None:
    two_blocks.replace(65, make_sample(65, id='Ωμέγα "quoted" \\ / \n', group="", mpp=1e-7, size=(1, 70000)))
    two_blocks.set_present(64, present=False)

    for row in (0, 1, 63, 64, 66):
        np.testing.assert_array_equal(program["sample"](store_path, row), make_sample(row).image)
    np.testing.assert_array_equal(program["sample"](store_path, 65), make_sample(65).image)


def test_the_program_finds_a_damaged_sample(store, store_path, files, program) -> None:
    files["samples/ignore/c/1/0/0"] = files["samples/ignore/c/0/0/0"]

    with pytest.raises(ValueError, match="row 1 is damaged"):
        program["sample"](store_path, 1)


def test_the_program_checks_seals_and_names_of_groups(embedded, store_path, key, files, program) -> None:
    arrays = [f"samples/{path.name}" for path in (store_path / "samples").iterdir() if path.is_dir()]
    group = store_path / "embeddings" / key.hash

    assert program["key_hash"](dict(key.fields)) == key.hash
    assert program["is_sealed"](store_path, arrays)
    assert program["is_sealed"](group, [])
    assert program["is_sealed"](group / "identity", ["values", "stored", "record"])
    files.edit(f"embeddings/{key.hash}/identity/values/zarr.json", lambda document: document.update(fill_value=1))
    assert not program["is_sealed"](group / "identity", ["values", "stored", "record"])


def test_the_drawing_names_every_array_and_the_format(embedded, store_path) -> None:
    drawing = README.read_text("utf-8").split("```text\n")[1].split("```")[0]
    arrays = {path.parent.name for path in store_path.rglob("zarr.json") if (path.parent / "c").is_dir()}

    assert f"format {FORMAT}," in drawing
    assert arrays | {"scale"} == set(re.findall(r"[├└]── ([a-z_]+)\b(?![/-])", drawing)) | {"stratum"}
    for name, array in zarr.open_group(store_path, mode="r")["samples"].arrays():
        line = next(line for line in drawing.splitlines() if re.search(rf"\b{name}\b +\(|\b{name}\b.*\(N", line))
        assert f"{64 if array.chunks[0] == 64 else 1} row" in line


def test_every_format_is_in_the_table() -> None:
    assert all(f"| `{name}`" in README.read_text("utf-8") for name in FORMATS)
