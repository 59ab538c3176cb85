"""Names in a report are text, whatever characters they have."""

import csv
import io
from types import SimpleNamespace
from typing import Any

import pytest

from nucseg.metrics import PixelCounts
from nucseg_pipeline.evaluation.scores import IMAGE_METRICS
from nucseg_pipeline.formatting import markdown_table
from nucseg_pipeline.report.text import csv_text


def scores(id_: str) -> Any:
    counts = PixelCounts(*[0] * len(PixelCounts.__dataclass_fields__))
    image = SimpleNamespace(id=id_, group="g", stratum="s", values=dict.fromkeys(IMAGE_METRICS, -0.5), counts=counts,
                            n_true=0, n_predicted=0)  # fmt: skip
    return SimpleNamespace(images=[image])


@pytest.mark.parametrize("id_", ["=1+1", "+1", "-2", "@SUM(A1)", " =1", "\N{FULLWIDTH EQUALS SIGN}1"])
def test_a_name_that_a_spreadsheet_would_compute_has_an_apostrophe(id_: str) -> None:
    (row,) = csv.DictReader(io.StringIO(csv_text({"d": {"=r": scores(id_)}}, {"=r": "@c"})))

    assert (row["id"], row["run"], row["configuration"]) == (f"'{id_}", "'=r", "'@c")
    assert float(row[IMAGE_METRICS[0]]) == -0.5


@pytest.mark.parametrize("id_", ["plain", "a=b", "1-2", "'quoted", "<b>", "ä"])
def test_other_names_stay_as_they_are(id_: str) -> None:
    (row,) = csv.DictReader(io.StringIO(csv_text({"d": {"r": scores(id_)}}, {"r": "c"})))

    assert row["id"] == id_


def test_a_name_cannot_leave_its_cell_nor_be_html() -> None:
    *_, row, end = markdown_table(["name", "value"], [["a|b\n| c", "<script>x</script>"]])

    assert (row, end) == (r"| a\|b \| c | \<script>x\</script> |", "")
