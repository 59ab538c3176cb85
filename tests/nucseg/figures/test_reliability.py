import io

import numpy as np
import pytest
from matplotlib.colors import to_hex

from nucseg.figures import reliability_diagram
from nucseg.figures.style import CYCLE
from nucseg.metrics import Reliability, count_reliability

PROBABILITY = np.array([[0.01, 0.03, 0.5, 0.5, 0.98, 1.0]], dtype=np.float32)
TRUTH = np.array([[0, 0, 1, 0, 1, 1]], dtype=bool)
COUNTS = count_reliability(PROBABILITY, TRUTH)


def test_each_bin_with_pixels_is_a_point_at_its_mean_probability_and_its_share_of_nuclei() -> None:
    upper = reliability_diagram({"run": COUNTS}).axes[0]

    assert upper.lines[0].get_xydata().tolist() == [[0, 0], [1, 1]]
    np.testing.assert_allclose(upper.lines[1].get_xydata(), [[0.02, 0], [0.5, 0.5], [0.99, 1]], atol=1e-6)


def test_the_lower_plot_shows_the_share_of_pixels_with_gaps_for_empty_bins() -> None:
    lower = reliability_diagram({"run": COUNTS}).axes[1]
    shares, edges, _ = lower.patches[0].get_data()

    assert shares[[0, 7, 14]] == pytest.approx([1 / 3] * 3)
    assert np.isnan(np.delete(shares, [0, 7, 14])).all()
    assert edges == pytest.approx(np.arange(16) / 15)
    assert lower.get_yscale() == "log"


def test_runs_are_named_and_differ_in_colour_and_in_dash() -> None:
    figure = reliability_diagram({"one": COUNTS, "two": COUNTS, "three": COUNTS})
    lines, steps = figure.axes[0].lines[1:], figure.axes[1].patches

    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two", "three"]
    assert [line.get_color() for line in lines] == list(CYCLE[:3])
    assert [to_hex(step.get_edgecolor()).upper() for step in steps] == list(CYCLE[:3])
    assert len({line.get_linestyle() for line in lines}) == 3


@pytest.mark.parametrize("counts", [Reliability.of_nothing(0, 0), Reliability.of_nothing(10, 3)])
def test_runs_without_pixels_or_with_a_single_bin_can_be_drawn(counts: Reliability) -> None:
    figure = reliability_diagram({"run": counts})

    figure.savefig(io.BytesIO(), format="svg")
    assert len(figure.axes[0].lines[1].get_xydata()) == (counts.n_pixels > 0).sum()
