"""Commands that are killed at random moments and run again: they end where an undisturbed run ends."""

import contextlib
import csv
import json
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

MAX_REPEATED = 4
"""The images of the batch that is encoded and of the one that is written, at two images per batch, the least."""

NewWorkspace = Callable[..., Any]


# ---- embed

OPTIONS: dict[str, tuple[object, ...]] = {
    "embed": (),
    "embed --views d4": ("--views", "d4", "--view-images", 1),
    "embed --format i8": ("--format", "i8"),
}


def embed_phase(workspace: Any) -> str:
    """What an `embed` that was killed was doing, judged by what it left."""
    n_embedded = workspace.n_embedded()
    if n_embedded < 0:
        return "before the store exists"
    return "while encoding" if n_embedded or workspace.n_begun() else "while preparing images"


def embed_again(workspace: Any, undisturbed: Any, n_kills: int, *options: object) -> str:
    """Embed once more; what is wrong with the command or the store, empty if nothing is."""
    n_all, n_kept = undisturbed.n_embedded(), max(workspace.n_embedded(), 0)
    command = workspace.embed(*options)
    if command.wait() != 0:
        return f"the next run failed: {command.text}"
    if command.number(r"(\d+) encoded") != n_all - n_kept:
        return f"the store had {n_kept} of {n_all} embeddings, but the next run says: {command.text}"
    if workspace.n_begun() - n_all > MAX_REPEATED * n_kills:
        return f"{workspace.n_begun() - n_all} images were encoded again after {n_kills} kills"
    why: str = workspace.damage() or workspace.differences(undisturbed)
    return why


def test_killed_embed_ends_like_an_undisturbed_one(
    embedded: Any, new_workspace: NewWorkspace, profile: Any, ledger: Any
) -> None:
    undisturbed = {"embed": embedded}
    for trial in range(profile.trials(short=2, long=42)):
        name, random = list(OPTIONS)[trial % len(OPTIONS)], profile.random(1, trial)
        if name not in undisturbed:
            other = new_workspace(embedded[0].dataset)
            undisturbed[name] = other, other.embed(*OPTIONS[name]).seconds()
        expected, seconds = undisturbed[name]
        workspace, faults, wrong = new_workspace(expected.dataset), [], ""
        for _ in range(profile.trials(short=1, long=int(random.integers(1, 5)))):
            n_before = workspace.n_embedded()
            if not workspace.embed(*OPTIONS[name]).killed_after(random.uniform(0, seconds)):
                break
            faults.append(f"{name} killed {embed_phase(workspace)}")
            wrong = wrong or workspace.damage()
            if workspace.n_embedded() < n_before:
                wrong = wrong or "embeddings are gone"
        ledger.judge_all(faults, wrong or embed_again(workspace, expected, len(faults), *OPTIONS[name]))


def test_embed_killed_before_images_are_replaced(
    embedded: Any, new_workspace: NewWorkspace, profile: Any, ledger: Any
) -> None:
    _, seconds = embedded
    for trial in range(profile.trials(short=1, long=10)):
        random = profile.random(2, trial)
        workspace, faults, wrong = new_workspace(), [], ""
        for version in range(1, profile.trials(short=2, long=int(random.integers(2, 4)))):
            if workspace.embed().killed_after(random.uniform(0, seconds)):
                faults.append("embed killed, images replaced before it resumes")
            wrong = wrong or workspace.damage()
            for number in random.choice(4, 2, replace=False):
                workspace.dataset.repaint(int(number), version)
        undisturbed = new_workspace(workspace.dataset)
        commands = workspace.embed(), undisturbed.embed()
        wrong = wrong or "".join(command.failure() for command in commands)
        ledger.judge_all(faults, wrong or workspace.damage() or workspace.differences(undisturbed))


def test_two_embeds_at_once_of_which_one_or_both_are_killed(
    embedded: Any, new_workspace: NewWorkspace, profile: Any, ledger: Any
) -> None:
    undisturbed, seconds = embedded
    for trial in range(profile.trials(short=1, long=12)):
        random = profile.random(3, trial)
        workspace, wrong = new_workspace(undisturbed.dataset), ""
        first, second = workspace.embed(), workspace.embed()
        killed = [first.killed_after(random.uniform(0, 1.5 * seconds))]
        if trial % 2:
            killed.append(second.killed_after(random.uniform(0, seconds)))
        elif failure := second.failure():
            wrong = f"the surviving process failed: {failure}"
        elif workspace.n_embedded() != undisturbed.n_embedded():
            wrong = f"the surviving process left rows: {second.text}"
        wrong = wrong or embed_again(workspace, undisturbed, sum(killed))
        fault = f"two embeds at once, {'both' if trial % 2 else 'one'} killed"
        ledger.judge_all([fault] * any(killed), wrong)


# ---- signals that ask a command to stop

SOON_S = 10.0
"""The longest that a command may take to stop on a busy machine."""

MESSAGES = {signal.SIGTERM: "Stopped by SIGTERM.", signal.SIGINT: "Interrupted."}


def stop(command: Any, sent: signal.Signals, after: float) -> str | None:
    """Stop a command that has begun to work; what is wrong with its end, None if it had ended before."""
    command.until(lambda: command.text)
    time.sleep(after)
    began = time.monotonic()
    status = command.send(sent).wait()
    seconds = time.monotonic() - began
    if command.text.splitlines()[-1].startswith(("store: ", "run: ")):
        return None
    if status != 130 or MESSAGES[sent] not in command.text or "Traceback" in command.text:
        return f"it ended with {status}: {command.text}"
    return f"it took {seconds:.1f} s to stop" if seconds > SOON_S else ""


def test_stopped_embed_says_so_and_resumes(
    embedded: Any, new_workspace: NewWorkspace, profile: Any, ledger: Any
) -> None:
    undisturbed, seconds = embedded
    for trial in range(profile.trials(short=1, long=24)):
        workspace, sent = new_workspace(undisturbed.dataset), list(MESSAGES)[trial % 2]
        wrong = stop(workspace.embed(), sent, profile.random(4, trial).uniform(0, 0.7 * seconds))
        faults = [f"embed stopped by {sent.name}"] * (wrong is not None)
        ledger.judge_all(faults, wrong or workspace.damage() or embed_again(workspace, undisturbed, 1))


# ---- train

RUN_FILES = {
    "config.toml", "split.json", "inputs.json", "run.json", "position.npy", "epochs.csv", "last.pt", "best.pt",
    "rule.json",
}  # fmt: skip

N_EPOCHS = 3


@pytest.fixture(scope="module")
def trained(embedded: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of an undisturbed run, and the seconds that it took."""
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    return run, embedded[0].train(run).seconds()


def train_phase(run: Path) -> str:
    """What a training that was killed was doing, judged by what it left."""
    if not (run / "run.json").exists():
        return "while it creates its folder"
    if list(run.glob(".*.pt.part")):
        return "while it writes a checkpoint"
    if not (run / "last.pt").exists():
        return "before its first checkpoint"
    return "after its last epoch" if len(history(run)) == N_EPOCHS else "between two checkpoints"


def history(run: Path) -> list[dict[str, str]]:
    """The rows of epochs.csv without the times; empty if the file is missing."""
    if not (run / "epochs.csv").exists():
        return []
    with (run / "epochs.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def tensors(file: Path) -> dict[str, bytes]:
    """The bytes of every tensor in a checkpoint. A checkpoint is a zip file, whose other entries have times."""
    with zipfile.ZipFile(file) as opened:
        return {name: opened.read(name) for name in opened.namelist() if "/data/" in name}


def run_difference(run: Path, expected: Path) -> str:
    """How a finished run differs from an undisturbed one; empty if it does not."""
    found = {file.name for file in run.iterdir()}
    if found != RUN_FILES:
        return f"the folder has {sorted(found)}"
    for name in RUN_FILES - {"epochs.csv", "last.pt"}:
        if (run / name).read_bytes() != (expected / name).read_bytes():
            return f"{name} differs from that of an undisturbed run"
    if tensors(run / "last.pt") != tensors(expected / "last.pt"):
        return "the weights differ from those of an undisturbed run"
    return "" if history(run) == history(expected) else f"other epochs: {history(run)}"


def unfinished_run_problem(run: Path, nucseg: Any) -> str:
    """What is wrong with the folder of a killed run: unknown files, or a report that accepts it."""
    names = {file.name for file in run.iterdir()} if run.exists() else set()
    unknown = {name for name in names if name.removeprefix(".").removesuffix(".part") not in RUN_FILES}
    if unknown:
        return f"it left {unknown}"
    if "run.json" in names and json.loads((run / "run.json").read_bytes())["status"] == "finished":
        return ""
    report = nucseg("report", run, "--out", run.with_name("no report"))
    if report.wait() != 1 or "Traceback" in report.text:
        return f"a report of it ended with {report.wait()}: {report.text}"
    if "config.toml" in names and not ("is not finished" in report.text and "--resume" in report.text):
        return f"a report of it says: {report.text}"
    return ""


def resume(embedded: Any, run: Path, undisturbed: Path) -> str:
    """Resume a run; what is wrong with it, empty if it ends like an undisturbed one."""
    return embedded[0].train(run, "--resume").failure() or run_difference(run, undisturbed)


def test_killed_train_ends_with_the_same_weights(
    embedded: Any, trained: Any, tmp_path: Path, nucseg: Any, profile: Any, ledger: Any
) -> None:
    undisturbed, seconds = trained
    for trial in range(profile.trials(short=1, long=25)):
        random = profile.random(5, trial)
        run, faults, wrong = tmp_path / f"run {trial}", [], ""
        for kill in range(profile.trials(short=1, long=int(random.integers(1, 4)))):
            command, after = embedded[0].train(run, *(["--resume"] if kill else [])), random.uniform(0, seconds)
            if random.random() < 0.4:
                command.until(lambda: any(run.glob(".*.pt.part")))  # noqa: B023 - called at once
                after = 0
            if not command.killed_after(after):
                break
            faults.append(f"train killed {train_phase(run)}")
            wrong = wrong or unfinished_run_problem(run, nucseg)
        ledger.judge_all(faults, wrong or resume(embedded, run, undisturbed))


def test_stopped_train_says_so_and_resumes(
    embedded: Any, trained: Any, tmp_path: Path, profile: Any, ledger: Any
) -> None:
    undisturbed, seconds = trained
    for trial in range(profile.trials(short=1, long=16)):
        run, sent = tmp_path / f"run {trial}", list(MESSAGES)[trial % 2]
        command = embedded[0].train(run)
        wrong = stop(command, sent, profile.random(6, trial).uniform(0, 0.7 * seconds))
        faults = [f"train stopped by {sent.name}"] * (wrong is not None)
        if not wrong and command.wait() and "the same command with --resume" not in command.text:
            wrong = f"it does not say how to resume: {command.text}"
        ledger.judge_all(faults, wrong or resume(embedded, run, undisturbed))


# ---- other commands

REPORT = ("per_image.csv", "report.html", "summary.json", "summary.md")


def test_killed_report_leaves_complete_files(
    trained: Any, tmp_path: Path, nucseg: Any, profile: Any, ledger: Any
) -> None:
    n_trials = profile.trials(short=0, long=8)
    out, (run, _) = tmp_path / "report", trained
    seconds = nucseg("report", run, "--out", out).seconds()
    scores = (out / "per_image.csv").read_bytes()
    for trial in range(n_trials):
        random = profile.random(7, trial)
        if random.random() < 0.5:
            shutil.rmtree(out)
        killed = nucseg("report", run, "--out", out).killed_after(random.uniform(0, seconds))
        names = {file.name for file in out.iterdir() if not file.name.startswith(".report-")} if out.exists() else set()
        incomplete = [name for name in names if not is_complete(out / name, scores)]
        wrong = f"incomplete: {incomplete}" if incomplete or not names <= set(REPORT) else ""
        last = nucseg("report", run, "--out", out)
        if last.wait() or {file.name for file in out.iterdir()} != set(REPORT):
            wrong = wrong or f"the next report left {sorted(file.name for file in out.iterdir())}: {last.text}"
        ledger.judge_all(["report killed"] * killed, wrong)


def is_complete(file: Path, scores: bytes) -> bool:
    """Whether a file of a report is complete."""
    content = file.read_bytes()
    if file.suffix == ".csv":
        return content == scores
    if file.suffix == ".json":
        return bool(json.loads(content))
    return content.endswith(b"\n") if file.suffix == ".md" else content.rstrip().endswith(b"</html>")


def test_killed_verify_clears_no_intact_row(
    embedded: Any, new_workspace: NewWorkspace, nucseg: Any, profile: Any, ledger: Any
) -> None:
    undisturbed, _ = embedded
    seconds = nucseg("cache", "verify", undisturbed.store).seconds()
    for trial in range(profile.trials(short=1, long=10)):
        random, damaged = profile.random(8, trial), new_workspace(undisturbed.dataset).copy_store(undisturbed)
        damaged.damage_value(int(random.integers(4)))
        killed = nucseg("cache", "verify", damaged.store).killed_after(random.uniform(0, seconds))
        nucseg("cache", "verify", damaged.store).wait()
        ledger.judge_all(["cache verify killed"] * killed, embed_again(damaged, undisturbed, n_kills=1))


def test_killed_prune_leaves_a_key_complete_or_gone(
    embedded: Any, new_workspace: NewWorkspace, nucseg: Any, profile: Any, ledger: Any
) -> None:
    n_trials = profile.trials(short=0, long=12)
    undisturbed, _ = embedded
    both = new_workspace(undisturbed.dataset).copy_store(undisturbed)
    both.embed("--format", "i8").seconds()
    (key,) = key_folders(both) - key_folders(undisturbed)
    seconds = nucseg("cache", "prune", new_workspace().copy_store(both).store, "--key", key).seconds()
    for trial in range(n_trials):
        pruned = new_workspace(undisturbed.dataset).copy_store(both)
        prune = ("cache", "prune", pruned.store, "--key", key)
        killed = nucseg(*prune).killed_after(profile.random(9, trial).uniform(0, seconds))
        wrong = pruned.damage()
        failure = nucseg(*prune).failure()
        if f"has no embeddings {key}" not in failure:
            wrong = wrong or failure
        ledger.judge_all(["cache prune killed"] * killed, wrong or pruned.differences(undisturbed))


def key_folders(workspace: Any) -> set[str]:
    return {folder.name for folder in workspace.store.joinpath("embeddings").iterdir() if folder.is_dir()}


RECIPE = """
[ablation]
title = "Guidance"
datasets = ["mine"]
folds = { mine = 1 }

[train]
model = "unet"
width = 2
epochs = 1
batch_size = 2

[[row]]
name = "alone"
fusion = "none"

[[row]]
name = "guided"
fusion = "concat"
"""


def test_killed_ablate_keeps_its_finished_runs(
    embedded: Any, tmp_path: Path, nucseg: Any, profile: Any, ledger: Any
) -> None:
    n_trials, workspace = profile.trials(short=0, long=2), embedded[0]
    (tmp_path / "guidance.toml").write_text(RECIPE)

    def ablate(name: str) -> Any:
        folders = ("--runs", tmp_path / name / "runs", "--out", tmp_path / name / "out", "--cache", workspace.cache)
        options = ("--encoder", workspace.encoder, "--device", "cpu", "--threads", 1)
        return nucseg("ablate", tmp_path / "guidance.toml", *options, *folders)

    def scores(name: str) -> bytes:
        return (tmp_path / name / "out" / "mine" / "per_image.csv").read_bytes()

    seconds = ablate("undisturbed").seconds()
    for trial in range(n_trials):
        random, name = profile.random(10, trial), str(trial)
        killed = [ablate(name).killed_after(random.uniform(0, seconds)) for _ in range(2)]
        wrong = ablate(name).failure()
        if not wrong and scores(name) != scores("undisturbed"):
            wrong = "the scores differ from those of an undisturbed run"
        ledger.judge_all(["ablate killed"] * sum(killed), wrong)


# ---- new interpreters, not forks


def test_commands_killed_in_a_fresh_interpreter(
    embedded: Any, trained: Any, new_workspace: NewWorkspace, tmp_path: Path, profile: Any, ledger: Any
) -> None:
    n_trials = profile.trials(short=0, long=2)
    undisturbed, (run, _) = embedded[0], trained
    embed_seconds = run_fresh(new_workspace(undisturbed.dataset).embed_arguments())[0]
    train_seconds = run_fresh(undisturbed.train_arguments(tmp_path / "undisturbed"))[0]
    for trial in range(n_trials):
        random, killed = profile.random(11, trial), new_workspace(undisturbed.dataset)
        faults, wrong = kill_fresh(killed.embed_arguments(), random.uniform(0, embed_seconds, 2))
        ledger.judge_all(faults, wrong or killed.differences(undisturbed))
        again = tmp_path / f"{trial}"
        arguments = undisturbed.train_arguments(again, "--resume")
        faults, wrong = kill_fresh(arguments, random.uniform(0, train_seconds, 2))
        ledger.judge_all(faults, wrong or run_difference(again, run))


def run_fresh(arguments: Sequence[object]) -> tuple[float, str]:
    """Run a command in a new interpreter; the seconds that it took, and its errors if it failed."""
    began = time.monotonic()
    command = [sys.executable, "-m", "nucseg_pipeline", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return time.monotonic() - began, done.stderr if done.returncode else ""


def kill_fresh(arguments: Sequence[object], moments: Sequence[float]) -> tuple[list[str], str]:
    """Kill a command at some moments, then let it finish; the kills, and the errors of the last run."""
    command, faults = [sys.executable, "-m", "nucseg_pipeline", *map(str, arguments)], []
    for moment in moments:
        started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(moment)
        started.kill()
        if started.wait() == -signal.SIGKILL:
            faults.append(f"{arguments[0]} killed in a fresh interpreter")
    return faults, run_fresh(arguments)[1]
