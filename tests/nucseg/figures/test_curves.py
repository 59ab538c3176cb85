import io

import pytest

from nucseg.figures import Epoch, training_curves

HISTORY = [Epoch(1, 0.9, 0.3), Epoch(2, 0.5, 0.8), Epoch(3, 0.4, 0.7)]


def test_loss_and_dice_are_drawn_by_epoch_and_the_best_epoch_is_marked() -> None:
    figure = training_curves({"run": HISTORY})
    loss, dice = figure.axes

    assert [list(line.get_xydata()[:, 1]) for line in loss.lines] == [[0.9, 0.5, 0.4]]
    assert [line.get_xydata().tolist() for line in dice.lines] == [[[1, 0.3], [2, 0.8], [3, 0.7]], [[2, 0.8]]]


@pytest.mark.parametrize("history", [[], HISTORY[:1]])
def test_a_history_of_no_or_one_epoch_can_be_drawn(history: list[Epoch]) -> None:
    figure = training_curves({"long": HISTORY, "short": history})

    figure.savefig(io.BytesIO(), format="svg")
    assert len(figure.axes[0].lines) == 1 + len(history)
