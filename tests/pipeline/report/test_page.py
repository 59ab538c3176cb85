"""The page of a report, as HTML."""

import base64
import csv
import hashlib
import html
import json
import re

import pytest

from nucseg_pipeline.report.stage import ReportResult
from tests.pipeline.report.drawn import ROWS, SIDE, DrawnRun, Page, Report, folds, page_data, two_runs


def test_the_page_is_well_formed_and_asks_nothing_of_a_network(two: ReportResult) -> None:
    text = two.page.read_text()
    page = Page(text)
    addresses = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]

    assert page.open == []
    assert "organ/&lt;image&gt; [0]" in text
    assert "<image>" not in text
    assert addresses
    assert all(address and address.startswith(("data:image/", "#")) for address in addresses)
    assert not re.search(r"url\((?!#)|@import|<link|https?://(?!www.w3.org/)", text)
    assert "default-src 'none'; img-src data:" in text


def test_the_only_script_that_may_run_is_that_of_the_page(two: ReportResult) -> None:
    text = two.page.read_text()
    (code,) = re.findall("<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()

    assert text.count("<script") == 2  # the other one is data
    assert f"script-src 'sha256-{digest}';" in text
    assert not [name for _, attributes in Page(text).elements for name in attributes if name.startswith("on")]


def test_pictures_have_words_and_tables_have_captions(two: ReportResult) -> None:
    page = Page(two.page.read_text())
    tags = [tag for tag, _ in page.elements]
    alts = [attributes.get("aria-label") for _, attributes in page.elements if attributes.get("role") == "img"]
    in_viewer = 3

    assert all(alts[:-in_viewer])
    # four charts; of the image: itself, its truth, two predictions, what guidance changed, the embedding
    assert len(set(alts[:-in_viewer])) == len(alts[:-in_viewer]) == 4 + 6
    assert tags.count("caption") == tags.count("table") > 4


def test_the_page_begins_with_the_dice_and_the_score_of_an_empty_prediction(two: ReportResult) -> None:
    dice = two.summaries[0].runs[0].metrics["dice"]
    text = Page(two.page.read_text()).text

    assert f"guided guided, xgfb baseline {dice.value:.3f} 95 % interval {dice.low:.3f} to {dice.high:.3f}" in text
    assert f"scores {two.summaries[0].all_background['dice_weighted'].value:.3f} on these images" in text
    assert "slides leak" in text
    assert f"{SIDE} px grid" in text
    assert "Warning" not in text
    (comparison,) = two.summaries[0].comparisons
    assert f"p = {comparison.holm_p['dice']:.3f}" in text
    for metric in ("aji", "pq"):
        assert f"{two.summaries[0].runs[0].metrics[metric].value:.3f}" in text


def test_a_single_group_has_no_interval_and_the_report_says_so(make: Report) -> None:
    ids = [image_id for image_id, row in ROWS.items() if row.group == "slide 0"]
    result = make({"run": DrawnRun("run", error=1.0, ids=ids)}, page=True)

    assert "no interval: one group" in Page(result.page.read_text()).text
    assert json.loads((result.folder / "summary.json").read_text())["runs"]["run"]["metrics"]["dice"]["low"] is None


def test_the_page_of_repeats_shows_the_spread_every_run_and_settings_by_configuration(repeated: ReportResult) -> None:
    text = Page(repeated.page.read_text()).text
    markdown = (repeated.folder / "summary.md").read_text()

    assert "3 runs: folds 0, 1, seeds 0, 1" in text
    assert all(name in text for name in folds())
    assert "do not compare them with each other" in text
    assert "## Repeats" in markdown
    assert (
        "| guided | 2 folds, averaged over the seeds of each fold (3 runs: folds 0, 1, seeds 0, 1) | dice |" in markdown
    )
    assert "(guided-f0)" in text  # whose prediction a picture shows


def test_a_report_of_many_configurations_draws_the_first_ones_and_says_so(make: Report) -> None:
    many = {f"run{number}": DrawnRun("", error=0.5 + number / 10) for number in range(9)}
    result = make(many, page=True)
    text = Page(result.page.read_text()).text

    assert text.count("Only the first 8 configurations are drawn, 1 are omitted.") == 2
    assert len(result.summaries[0].comparisons) == 8


def test_the_median_worst_and_best_image_and_the_largest_gain_and_loss_are_shown_before_others(make: Report) -> None:
    result = make(two_runs(), page=True, n_images=6)
    with (result.folder / "per_image.csv").open(newline="") as file:
        dice = {(line["run"], line["id"]): float(line["dice"]) for line in csv.DictReader(file)}
    ranked = sorted(ROWS, key=lambda image_id: dice["guided", image_id])
    gains = {image_id: dice["guided", image_id] - dice["unguided", image_id] for image_id in ROWS}
    headings = re.findall(
        r"<h3 id=\"image-\d+-title\">(.*?) <span class=\"soft\">(.*?) · organ", result.page.read_text()
    )
    reasons = {html.unescape(image_id): why for image_id, why in headings}

    assert list(reasons)[:3] == [ranked[3], ranked[0], ranked[-1]]
    assert [why.partition(",")[0] for why in reasons.values()][:3] == ["median", "worst", "best"]
    assert "largest gain" in reasons[max(gains, key=gains.__getitem__)]
    assert all(gains[image_id] < 0 for image_id, why in reasons.items() if "largest loss" in why)


def test_what_guidance_changed_is_counted_in_pixels_and_nuclei(two: ReportResult) -> None:
    data = page_data(two)
    (picture,) = data["pictures"]
    drawn_id = data["ids"][data["pictureOf"].index(0)]
    row, runs = ROWS[drawn_id], two_runs()
    counted = ~row.ignore
    right = {name: ((run.probability(row) >= 0.5) == (row.instances > 0))[counted] for name, run in runs.items()}
    effects = {prediction["name"]: prediction["guidance"] for prediction in picture["predictions"]}

    assert effects["unguided"] is None
    assert effects["guided"]["against"] == "unguided"
    # small nuclei are dropped after the threshold, which moves a few pixels
    assert effects["guided"]["helped"] == pytest.approx((right["guided"] & ~right["unguided"]).sum(), abs=12)
    assert effects["guided"]["harmed"] == pytest.approx((right["unguided"] & ~right["guided"]).sum(), abs=12)


def test_the_data_of_the_page_are_the_scores_of_the_table(two: ReportResult) -> None:
    data = page_data(two)
    with (two.folder / "per_image.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))

    for position, name in enumerate(data["configurations"]):
        own = [line for line in lines if line["configuration"] == name]
        assert [line["id"] for line in own] == data["ids"]
        for metric in ("dice", "hd95", "brier"):
            assert data["values"][metric][position] == pytest.approx([float(line[metric]) for line in own], abs=1e-5)
    assert sum(picture is not None for picture in data["pictureOf"]) == 1
