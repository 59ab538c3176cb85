"""The report in a real browser: by mouse, keyboard and screen reader, on a phone and on paper."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucseg_pipeline.evaluation.scores import RunScores
from nucseg_pipeline.report.cross_dataset import matrix
from nucseg_pipeline.report.page import Gallery, matrix_page, page_text
from nucseg_pipeline.report.stage import ReportResult
from tests.pipeline.report.conftest import NAMES

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

Open = Callable[..., Any]

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all tests here."""
    api = pytest.importorskip("playwright.sync_api", reason="no browser tests: pip install playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("NUCSEG_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no browser tests: none of {', '.join(names)} is installed; NUCSEG_CHROMIUM names another one")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any, trained_report: ReportResult) -> Iterator[Open]:
    """Opens a page; afterwards nothing may have been requested of a network, and nothing have gone wrong."""
    opened, wrong, requested = [], [], []

    def open_page(file: Path = trained_report.page, **how: Any) -> Any:
        context = browser.new_context(**{"viewport": DESKTOP, **how})
        opened.append(context)
        context.route(re.compile("^(?!file:)"), lambda route: requested.append(route.request.url) or route.abort())
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request", lambda request: requested.append(request.url) if request.url[:5] not in ("file:", "data:") else 0
        )
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in opened:
        context.close()
    assert (wrong, requested) == ([], [])


def summary(result: ReportResult) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((result.folder / "summary.json").read_text())
    return read


def column(page: Any, number: int) -> list[str]:
    """The texts of a column of the table of images."""
    cells: list[str] = page.locator(f"#table tbody tr > :nth-child({number})").all_inner_texts()
    return cells


def values(page: Any, number: int) -> list[float]:
    return [float(text.replace("\N{MINUS SIGN}", "-")) for text in column(page, number)]


def test_without_scripts_every_image_and_every_picture_is_there(visit: Open, trained_report: ReportResult) -> None:
    page, content = visit(java_script_enabled=False), summary(trained_report)

    assert page.locator("#table tbody tr").count() == content["n_images"]
    assert page.locator("article.picture").count() == 2
    assert page.locator("article.picture svg.layers").first.is_visible()
    assert not page.locator("#controls").is_visible()


def test_a_column_is_sorted_up_and_down_as_numbers(visit: Open) -> None:
    page = visit()
    before, heading = values(page, 4), page.locator("#table th", has_text="unguided").first
    heading.get_by_role("button").click()
    up = values(page, 4)
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.get_by_role("button").click()

    assert up == sorted(before)
    assert values(page, 4) == sorted(before, reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    assert page.locator("#table th[aria-sort]").count() == 1


def test_the_table_is_sorted_by_keyboard_and_another_score_keeps_the_column(visit: Open) -> None:
    page = visit()
    page.locator("#table thead th button").first.focus()
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    nuclei = values(page, 3)
    assert nuclei == sorted(nuclei)

    page.locator("#table thead th button", has_text="xgfb").first.press("Space")
    page.get_by_label("Score", exact=True).select_option("aji")
    assert values(page, 5) == sorted(values(page, 5))
    assert "AJI per image" in page.locator("#table caption").inner_text()


def test_missing_scores_come_last_either_way_and_equal_ones_stay_in_order(visit: Open) -> None:
    page = visit()
    ordered = """direction => [3, null, 1, 10, NaN, 1].map((value, place) => [value, place])
        .sort((a, b) => compare(a[0], b[0], direction)).map(([, place]) => place)"""

    assert page.evaluate(ordered, "ascending") == [2, 5, 0, 3, 1, 4]
    assert page.evaluate(ordered, "descending") == [3, 0, 2, 5, 1, 4]


def test_filters_leave_what_fits_and_say_how_many(visit: Open, trained_report: ReportResult) -> None:
    page, n_images = visit(), summary(trained_report)["n_images"]
    count = page.get_by_role("status").filter(has_text="Showing")
    assert count.inner_text() == f"Showing 1 to {n_images} of {n_images} images."
    assert sum("no pictures" in text for text in column(page, 1)) == n_images - 2 > 0
    name = column(page, 1)[0].splitlines()[0].replace(" no pictures", "")
    page.get_by_label("Find images").fill(name.upper())
    assert count.inner_text() == f"Showing 1 to 1 of 1 of {n_images} images."
    page.get_by_label("Find images").fill("")
    page.locator("#stratum").select_option(label="organ 1")
    assert set(column(page, 2)) == {"organ 1"}
    page.locator("#stratum").select_option(label="all")
    page.get_by_label("with pictures only").check()
    assert page.locator("#table tbody tr").count() == 2
    page.get_by_label("Find images").fill("nothing of this name")

    assert page.locator("#count").inner_text().startswith("No image matches")
    assert page.locator("#count").get_attribute("aria-live") == "polite"


def test_the_viewer_opens_by_keyboard_turns_by_arrows_and_gives_the_focus_back(visit: Open) -> None:
    page = visit()
    opener = page.locator("#table tbody button").first
    opener.focus()
    page.keyboard.press("Enter")
    viewer, title = page.get_by_role("dialog"), page.locator("#viewer-title")
    assert viewer.is_visible()
    first = title.inner_text()
    assert first == opener.inner_text()
    page.keyboard.press("ArrowRight")
    second = title.inner_text()
    page.keyboard.press("ArrowRight")  # there is no third
    assert second == title.inner_text() != first
    page.keyboard.press("ArrowLeft")
    assert title.inner_text() == first
    page.keyboard.press("Escape")

    assert not viewer.is_visible()
    assert opener.evaluate("element => element === document.activeElement")


def test_the_viewer_lays_the_layers_over_the_image_that_are_chosen(visit: Open) -> None:
    page = visit()
    page.locator("#table tbody tr.pictured td").first.click()
    stage = page.locator("#viewer-stage")

    def layers() -> set[str]:
        uses = stage.locator("use").evaluate_all("all => all.map((use) => use.getAttribute('href'))")
        assert page.evaluate("all => all.every((href) => document.querySelector(href))", uses)
        return {re.sub(r"#s\d-", "", use) for use in uses}

    assert layers() == {"image", "differences0", "found0"}
    assert not page.get_by_role("button", name="Where guidance helped").is_visible()
    page.locator("#viewer-choices button", has_text="multiscale").click()
    page.get_by_role("button", name="Where guidance helped").click()
    assert page.get_by_role("button", name="Missed and added").get_attribute("aria-pressed") == "false"
    assert layers() == {"image", "found2", "guidance2", "gained2", "lost2"}
    assert "Against unguided, right only with guidance" in page.locator("#viewer-caption").inner_text()
    assert page.locator("#viewer-embedding").is_visible()
    assert "multiscale" in (stage.get_attribute("aria-label") or "")


def violations(page: Any) -> list[str]:
    """What axe-core finds of serious or critical impact."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{violation['id']}: {node['html'][:200]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize(("viewport", "scheme"), [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light")])
def test_axe_finds_no_serious_violation(visit: Open, viewport: dict[str, int], scheme: str) -> None:
    pytest.importorskip("axe_playwright_python")
    page = visit(viewport=viewport, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")

    assert violations(page) == []
    page.locator("#table tbody button").first.click()
    assert violations(page) == []


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_the_page_is_never_wider_than_the_screen(visit: Open, width: int) -> None:
    page = visit(viewport={"width": width, "height": 700})
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")

    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.locator("#table tbody button").first.click()
    assert page.locator("#viewer .inside").evaluate("inside => inside.scrollWidth <= inside.clientWidth")


def test_on_paper_details_are_open_and_buttons_are_gone(visit: Open) -> None:
    page = visit()
    page.emulate_media(media="print")
    hidden = page.locator("details:not(.screen) > :not(summary)").evaluate_all(
        "all => all.filter((e) => !e.closest('details.screen, .meanings') && !e.checkVisibility()).length"
    )

    assert hidden == 0
    assert not page.locator("nav").is_visible()
    assert not page.locator("#controls").is_visible()
    assert not page.get_by_role("button", name="Copy command").first.is_visible()


def test_five_thousand_images_of_four_configurations_are_sorted_and_shown_in_pages(
    visit: Open, trained_report: ReportResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nucseg_pipeline.report.page.charts", lambda *_: [])  # they take longest
    (found,) = trained_report.summaries
    first = found.configurations[0]
    names = [f"configuration {number}" for number in range(4)]
    configurations = tuple(replace(first, name=name) for name in names)
    comparisons = tuple(replace(found.comparisons[0], name=name, baseline=names[0]) for name in names[1:])
    large = replace(found, strata=(), baseline=names[0], configurations=configurations, comparisons=comparisons)
    file = tmp_path / "large.html"
    file.write_text(page_text(large, [many_scores(name, 5000) for name in names], Gallery()))
    page = visit(file)
    page.locator("#table th button").nth(4).click()

    assert values(page, 5) == sorted(values(page, 5))
    assert page.locator("#count").inner_text() == "Showing 1 to 100 of 5000 images."
    page.get_by_role("button", name="Next 100").click()
    assert page.locator("#count").inner_text() == "Showing 101 to 200 of 5000 images."


def many_scores(name: str, n_images: int) -> RunScores:
    """Scores of so many images, drawn by chance."""
    from nucseg.metrics import PixelCounts, Reliability
    from nucseg_pipeline.evaluation.scores import IMAGE_METRICS, ImageScores, Nuclei

    drawn = np.random.default_rng(len(name) + int(name[-1]))
    nothing = Nuclei(np.zeros(0), np.zeros(0))
    counts = PixelCounts(1, 1, 1, 1)
    return RunScores(
        name,
        tuple(
            ImageScores(
                f"image {number}", "", f"organ {number % 9}", "", "", 10.0, counts, 5, 5.0,
                dict(zip(IMAGE_METRICS, drawn.random(len(IMAGE_METRICS)).tolist(), strict=True)),
                Reliability.of_nothing(4, 2), nothing,
            )
            for number in range(n_images)
        ),
    )  # fmt: skip


def test_the_matrix_is_sorted_by_the_same_script(visit: Open, trained_report: ReportResult, tmp_path: Path) -> None:
    pytest.importorskip("axe_playwright_python")
    (found,) = trained_report.summaries
    file = tmp_path / "matrix.html"
    file.write_text(matrix_page(matrix([found, replace(found, dataset="another")])))
    page = visit(file)
    region = page.get_by_role("region", name="Table of Dice", exact=True)
    region.get_by_role("button", name="synthetic").click()
    scores = [float(text.split()[0]) for text in region.locator("tbody tr td:nth-child(2)").all_inner_texts()]

    assert scores == sorted(scores)
    assert len(scores) == len(NAMES) + 1
    assert violations(page) == []
