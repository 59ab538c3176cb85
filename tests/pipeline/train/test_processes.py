"""Two processes that train or distill together end with the weights of one, but for the order of float32 sums.

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

from nucseg.encoders.student.sizes import SIZES, StudentShape
from nucseg.errors import ConfigError
from nucseg.nuclei.instances import InstanceRule
from nucseg_pipeline.config import DistillConfig, TrainConfig
from nucseg_pipeline.config.recipe import to_toml
from nucseg_pipeline.distill.stage import distill
from nucseg_pipeline.modelling.model import build_network
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
import os, sys, time
from datetime import timedelta
from pathlib import Path
from torch import distributed, nn
nn.BatchNorm2d.train = lambda norm, mode=True: nn.Module.train(norm, False)
# they meet in a file, so nothing listens but for the loopback interface
distributed.init_process_group(
    "gloo", init_method=f"file://{sys.argv[1]}/meeting", rank=int(os.environ["RANK"]), world_size=2,
    timeout=timedelta(seconds=600),
)
from nucseg.encoders.student.sizes import SIZES, StudentShape
from nucseg.nuclei.instances import InstanceRule
from nucseg_pipeline.config import DistillConfig, TrainConfig
from nucseg_pipeline.config.recipe import load_recipe, resolve
from nucseg_pipeline.distill.stage import distill
from nucseg_pipeline.train import stage
stage.choose_rule = lambda *args: InstanceRule(threshold=0.5)
SIZES["small"] = StudentShape(channels=8, fine_blocks=1, coarse_blocks=1, positions=8)

def late(path, *args, mkdir=Path.mkdir, **options):
    time.sleep(1)
    mkdir(path, *args, **options)

if os.environ["RANK"] == "0":  # so the other process looks for the folders before they are made
    Path.mkdir = late

folder = Path(sys.argv[1])
stage.train(resolve(TrainConfig, load_recipe(folder / "train.toml", "train"), {"run": folder / "run"}))
config = resolve(DistillConfig, load_recipe(folder / "distill.toml", "distill"), {"out": folder / "student"})
again = [distill(config, lambda done, total, what: None) for _ in range(2)][-1]
assert again.epochs_trained == 0
distributed.destroy_process_group()
"""


def in_two_processes(folder: Path, config: TrainConfig, student: DistillConfig) -> None:
    """Train and distill into the folders `run` and `student`."""
    (folder / "train.toml").write_text(to_toml(config, without=("run",)))
    (folder / "distill.toml").write_text(to_toml(student, without=("out",)))
    command = [sys.executable, "-W", "error", "-c", ONE_OF_TWO, str(folder)]
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "GLOO_SOCKET_IFNAME": "lo"}
    both = [
        subprocess.Popen(
            command, env={**os.environ, **environment, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    try:
        printed = [process.communicate(timeout=600)[0] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], "\n".join(printed)


def weights(run: Path) -> torch.Tensor:
    """All weights of a run after its last epoch, in one row."""
    tensors = RunFolder(run).load_checkpoint("last.pt")["model"].values()
    return torch.cat([tensor.flatten().double() for tensor in tensors])


def test_two_processes_end_with_the_weights_of_one(
    training: Configure, taught: Path, instant_encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = training(batch_size=2, epoch_images=6, dropout=0.0)
    student = DistillConfig(
        dataset=("synthetic",), cache=str(taught), teacher=instant_encoder, views=("identity",), size="small",
        split="kfold", epochs=2, batch_size=2, device="cpu", threads=1, out=tmp_path / "one student",
    )  # fmt: skip
    monkeypatch.setattr(nn.BatchNorm2d, "train", lambda norm, mode=True: nn.Module.train(norm, False))
    monkeypatch.setattr(stage, "choose_rule", lambda *args: InstanceRule(threshold=0.5))
    monkeypatch.setitem(SIZES, "small", StudentShape(channels=8, fine_blocks=1, coarse_blocks=1, positions=8))
    steps: list[Event] = []
    torch.manual_seed(config.seed)
    before = torch.cat([tensor.flatten().double() for tensor in build_network(config).state_dict().values()])
    (tmp_path / "two").mkdir()

    in_two_processes(tmp_path / "two", config, student)
    train(config, steps.append)
    distill(student, lambda done, total, what: None)

    alone, together = weights(config.folder), weights(tmp_path / "two" / "run")
    assert sum(isinstance(event, StepDone) for event in steps) >= 6
    assert (alone - before).norm() > 0.05 * before.norm()
    assert (together - alone).norm() < TOLERANCE * (alone - before).norm()
    for name in ("train_loss", "validation_loss", "validation_dice"):
        assert column(tmp_path / "two" / "run", name) == pytest.approx(column(config.folder, name), rel=TOLERANCE)
    # not the training loss: of an odd number of images the last is seen twice, once by each process
    losses = column(student.folder, "validation_loss")
    assert losses[1] < losses[0]
    assert column(tmp_path / "two" / "student", "validation_loss") == pytest.approx(losses, rel=TOLERANCE)


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
