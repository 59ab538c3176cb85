"""Drawings that lie inside a page."""

import re
import xml.etree.ElementTree as ElementTree

from nucseg.figures import training_curves, violin
from nucseg.figures.curves import Epoch
from nucseg_pipeline.report.charts import inline

HOSTILE = "--><script>alert(1)</script>"


def test_a_drawing_takes_its_ink_from_the_page() -> None:
    text = inline(violin({"run": [0.2, 0.5, 0.8]}), "violin")

    assert "currentColor" in text
    assert "var(--grid)" in text
    assert not re.search("#333333|#000000|#dddddd|#ffffff", text, flags=re.IGNORECASE)
    assert "<style" not in text


def test_ids_of_two_drawings_are_told_apart_and_every_reference_is_met() -> None:
    first, second = inline(violin({"run": [0.2, 0.5]}), "a b"), inline(violin({"run": [0.2, 0.5]}), "c")
    ids = [re.findall(r'\bid="(.*?)"', text) for text in (first, second)]

    assert not set(ids[0]) & set(ids[1])
    for text, own in zip((first, second), ids, strict=True):
        used = re.findall(r'href="#(.*?)"|url\(#(.*?)\)', text)
        assert used
        assert {href or url for href, url in used} <= set(own)


def test_names_in_a_drawing_are_shapes_and_no_elements() -> None:
    text = inline(training_curves({HOSTILE: [Epoch(1, 0.5, 0.5), Epoch(2, 0.4, 0.6)]}), HOSTILE)

    assert "script" not in text.replace("--script-alert-1---script-", "")
    assert ElementTree.fromstring(text).tag.endswith("svg")
