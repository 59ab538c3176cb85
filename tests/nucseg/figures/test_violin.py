import io

import numpy as np
import pytest

from nucseg.figures import violin

SCORES = np.random.default_rng(0).beta(8, 3, size=30).tolist()


def test_every_image_is_a_dot_and_the_bar_is_at_the_mean() -> None:
    axes = violin({"run": SCORES}).axes[0]
    violin_body, dots = axes.collections

    assert sorted(dots.get_offsets()[:, 0]) == pytest.approx(sorted(SCORES))
    assert axes.lines[0].get_xdata() == pytest.approx([np.mean(SCORES)] * 2)
    assert violin_body.get_paths()[0].vertices[:, 0].min() == pytest.approx(min(SCORES))
    assert violin_body.get_paths()[0].vertices[:, 0].max() == pytest.approx(max(SCORES))


def test_violins_have_the_names_of_their_runs() -> None:
    assert [text.get_text() for text in violin({"guided": SCORES, "unguided": SCORES}).axes[0].texts] == [
        "guided",
        "unguided",
    ]


@pytest.mark.parametrize("values", [[0.5], [0.0, 0.0, 0.0], [1.0, 0.0]])
def test_few_or_equal_scores_can_be_drawn(values: list[float]) -> None:
    figure = violin({"run": values})

    figure.savefig(io.BytesIO(), format="svg")
    assert len(figure.axes[0].collections[1].get_offsets()) == len(values)
