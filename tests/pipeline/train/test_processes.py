"""Two processes that train together end with the weights of one, but for the order in which float32 sums are taken.

Each process has half of every batch, and the gradient is the mean over both. Three things would make the halves differ
from the whole, and are off here: norms take the statistics that they began with, nothing is dropped out, and all images
have equally many valid pixels.
"""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from nucseg.errors import ConfigError
from nucseg.nuclei.instances import InstanceRule
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.modelling.model import build_network
from nucseg_pipeline.runs.checkpoint import load_checkpoint
from nucseg_pipeline.runs.folder import RunFolder
from nucseg_pipeline.train import stage
from nucseg_pipeline.train.events import Event, StepDone
from nucseg_pipeline.train.stage import train

Configure = Callable[..., TrainConfig]

pytestmark = pytest.mark.processes

TOLERANCE = 1e-4
"""Largest distance of the weights of two processes from those of one, as a share of the way that training took them.

The sum of n float32 values in another order differs by about u sqrt(n) of their size, u = 2**-24. A gradient here is a
sum over up to 2 x 32 x 32 pixels, so 3e-6; Adam divides a gradient by its own size, which keeps that share, and six
steps that each start from it leave a factor of five. Measured: 1.3e-6. A gradient that is not shared, or is of the
wrong half, takes the weights elsewhere by a share near 1.
"""

ONE_OF_TWO = """
import os, sys
from datetime import timedelta
from pathlib import Path
from torch import distributed, nn
nn.BatchNorm2d.train = lambda norm, mode=True: nn.Module.train(norm, False)
# they meet in a file, so nothing listens but for the loopback interface
distributed.init_process_group(
    "gloo", init_method=f"file://{sys.argv[3]}", rank=int(os.environ["RANK"]), world_size=2,
    timeout=timedelta(seconds=60),
)
from nucseg.nuclei.instances import InstanceRule
from nucseg_pipeline.train import stage
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.config.recipe import load_recipe, resolve
stage.choose_rule = lambda *args: InstanceRule(threshold=0.5)
stage.train(resolve(TrainConfig, load_recipe(sys.argv[1], "train"), {"run": Path(sys.argv[2])}))
distributed.destroy_process_group()
"""


def in_two_processes(config: TrainConfig, run: Path, meeting: Path) -> None:
    RunFolder(meeting.parent).write_config(config)
    recipe = str(meeting.parent / "config.toml")
    command = [sys.executable, "-W", "error", "-c", ONE_OF_TWO, recipe, str(run), str(meeting)]
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "GLOO_SOCKET_IFNAME": "lo"}
    both = [
        subprocess.Popen(
            command, env={**os.environ, **environment, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    try:
        printed = [process.communicate(timeout=120)[0] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], "\n".join(printed)


def weights(run: Path) -> torch.Tensor:
    """All weights of a run after its last epoch, in one row."""
    model = load_checkpoint(run / "last.pt", RunFolder(run).inputs().fingerprint)["model"]
    return torch.cat([tensor.flatten().double() for tensor in model.values()])


def test_two_processes_end_with_the_weights_of_one(
    training: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = training(batch_size=2, epoch_images=6, dropout=0.0)
    monkeypatch.setattr(nn.BatchNorm2d, "train", lambda norm, mode=True: nn.Module.train(norm, False))
    monkeypatch.setattr(stage, "choose_rule", lambda *args: InstanceRule(threshold=0.5))
    steps: list[Event] = []
    torch.manual_seed(config.seed)
    before = torch.cat([tensor.flatten().double() for tensor in build_network(config).state_dict().values()])

    in_two_processes(config, tmp_path / "two", tmp_path / "meeting")
    train(config, steps.append)

    one, two = weights(config.folder), weights(tmp_path / "two")
    assert sum(isinstance(event, StepDone) for event in steps) >= 6
    assert (one - before).norm() > 0.05 * before.norm()
    assert (two - one).norm() < TOLERANCE * (one - before).norm()
    for name in ("train_loss", "validation_loss", "validation_dice"):
        alone, run_all = (column(run, name) for run in (config.folder, tmp_path / "two"))
        assert run_all == pytest.approx(alone, rel=TOLERANCE), name


def column(run: Path, name: str) -> list[float]:
    with (run / "epochs.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def test_several_processes_of_which_accelerate_starts_one_are_not_trained_alone(
    training: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="torchrun --nproc_per_node"):
        train(training())
    assert not training().folder.exists()
