import io

from nucseg.figures import fidelity_bars
from nucseg.metrics import Interval


def error(value: float, low: float | None = None, high: float | None = None) -> Interval:
    return Interval(value, low, high, n_images=9, n_groups=9)


ERRORS = {
    "flip": {"plain": error(1.2, 1.1, 1.3), "corrected": error(0.5, 0.4, 0.6)},
    "turn": {"plain": error(1.4), "corrected": error(0.6)},
}


def test_every_replay_has_a_bar_of_its_error_under_every_motion() -> None:
    axes = fidelity_bars(ERRORS).axes[0]

    widths = {bars.get_label(): [bar.get_width() for bar in bars] for bars in axes.containers}
    assert widths == {"plain": [1.2, 1.4], "corrected": [0.5, 0.6]}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["flip", "turn"]


def test_bars_lie_next_to_their_motion_and_overlap_no_other() -> None:
    plain, corrected = fidelity_bars(ERRORS).axes[0].containers

    for row in range(2):
        upper, lower = plain[row], corrected[row]
        assert row - 0.5 < upper.get_y() < upper.get_y() + upper.get_height() <= lower.get_y() + 1e-9
        assert lower.get_y() + lower.get_height() < row + 0.5


def test_intervals_are_drawn_where_there_are_any_and_1_is_marked() -> None:
    lines = [list(line.get_xdata()) for line in fidelity_bars(ERRORS).axes[0].lines]

    assert sorted(lines) == [[0.4, 0.6], [1, 1], [1.1, 1.3]]


def test_the_title_is_above_and_the_figure_can_be_saved() -> None:
    figure = fidelity_bars(ERRORS, "nuinsseg, 16 images")
    figure.savefig(io.BytesIO(), format="png")

    assert figure.legends[0].get_title().get_text() == "nuinsseg, 16 images"
