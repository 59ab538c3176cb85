import io

from nucseg.figures import ErrorBars, fidelity_bars
from nucseg.metrics import Interval


def error(value: float, low: float | None = None, high: float | None = None) -> Interval:
    return Interval(value, low, high, n_images=9, n_groups=9)


ERRORS = {
    "flip": {"plain": error(1.2, 1.1, 1.3), "corrected": error(0.5, 0.4, 0.6)},
    "turn": {"plain": error(1.4), "corrected": error(0.6)},
}


COLOURS = {name: {"cached": error(value)} for name, value in (("gray", 0.3), ("blur", 0.1), ("stain", 0.05))}

MOTIONS = ErrorBars(ERRORS, "error", 1, "channel means")


def test_every_replay_has_a_bar_of_its_error_under_every_motion() -> None:
    axes = fidelity_bars([MOTIONS]).axes[0]

    widths = {bars.get_label(): [bar.get_width() for bar in bars] for bars in axes.containers}
    assert widths == {"plain": [1.2, 1.4], "corrected": [0.5, 0.6]}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["flip", "turn"]


def test_bars_lie_next_to_their_motion_and_overlap_no_other() -> None:
    plain, corrected = fidelity_bars([MOTIONS]).axes[0].containers

    for row in range(2):
        upper, lower = plain[row], corrected[row]
        assert row - 0.5 < upper.get_y() < upper.get_y() + upper.get_height() <= lower.get_y() + 1e-9
        assert lower.get_y() + lower.get_height() < row + 0.5


def test_intervals_are_drawn_where_there_are_any_and_the_reference_is_marked() -> None:
    axes = fidelity_bars([MOTIONS]).axes[0]

    assert sorted(list(line.get_xdata()) for line in axes.lines) == [[0.4, 0.6], [1, 1], [1.1, 1.3]]
    assert "channel means" in [text.get_text().strip() for text in axes.texts]


def test_every_panel_has_its_own_rows_columns_and_scale() -> None:
    motions, colours = fidelity_bars([MOTIONS, ErrorBars(COLOURS, "error", 0.2, "limit")]).axes

    assert [label.get_text() for label in colours.get_yticklabels()] == ["gray", "blur", "stain"]
    assert [text.get_text() for text in colours.get_legend().get_texts()] == ["cached"]
    assert [text.get_text() for text in motions.get_legend().get_texts()] == ["plain", "corrected"]
    assert colours.get_xlim()[1] < 0.5 < 1.4 < motions.get_xlim()[1]


def test_the_end_of_a_long_name_is_shown() -> None:
    path = "/a/very/long/way/" * 20 + "mine.toml"
    figure = fidelity_bars([ErrorBars({path: {"cached": error(0.3)}}, "error", 0.2, "limit")])

    figure.savefig(io.BytesIO(), format="png")  # warns if no width is left to the bars

    (label,) = (label.get_text() for label in figure.axes[0].get_yticklabels())
    assert len(label) == 40
    assert label.startswith("\N{HORIZONTAL ELLIPSIS}")
    assert path.endswith(label[1:])


def test_the_title_is_above_and_the_figure_can_be_saved() -> None:
    figure = fidelity_bars([MOTIONS], "nuinsseg, 16 images")
    figure.savefig(io.BytesIO(), format="png")

    assert figure.get_suptitle() == "nuinsseg, 16 images"
