"""Commands killed at random moments, and run again: they end where an undisturbed run ends."""

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

PRELOADED = (
    "nucseg_pipeline.embed.stage",
    "nucseg_pipeline.train.stage",
    "nucseg_pipeline.report.stage",
    "nucseg_pipeline.ablate.stage",
    "pydantic",
    "torch._dynamo",
)

MOST_REDONE = 4
"""Images of the batch in flight and of the one behind it: two batches of two, the least there is."""

Places = Callable[..., Any]


def record(ledger: Any, faults: Sequence[str], why: str) -> None:
    """Whether a series of faults was survived: none of them is, if something is wrong at its end."""
    assert faults or not why, f"nothing was tried, and yet: {why}"
    for fault in faults:
        if why:
            ledger.lost(fault, why)
        else:
            ledger.survived(fault)


def timed(command: Any) -> float:
    """The seconds that an undisturbed command takes."""
    began = time.monotonic()
    assert command.wait() == 0, command.text
    return time.monotonic() - began


# ---- embed

WAYS: dict[str, tuple[object, ...]] = {
    "embed": (),
    "embed with views": ("--views", "d4", "--view-images", 1),
    "embed in eight bits": ("--format", "i8"),
}


def during(place: Any) -> str:
    """What an `embed` that has just been killed was about, by what it left."""
    n_there = place.n_there()
    if n_there < 0:
        return "before there is a store"
    return "while it encodes" if n_there or place.n_begun() else "while it prepares images"


def ended_well(place: Any, undisturbed: Any, n_kills: int, *options: object) -> str:
    """Embed once more; what is wrong with it and with the store, nothing if nothing is."""
    n_all, n_kept = undisturbed.n_there(), max(place.n_there(), 0)
    command = place.embed(*options)
    if command.wait() != 0:
        return f"the next run failed: {command.text}"
    if command.number(r"(\d+) encoded") != n_all - n_kept:
        return f"{n_kept} of {n_all} were there, and the next run says: {command.text}"
    if place.n_begun() - n_all > MOST_REDONE * n_kills:
        return f"{place.n_begun() - n_all} images were encoded again after {n_kills} kills"
    why: str = place.trouble() or place.differences(undisturbed)
    return why


@pytest.fixture(scope="module")
def filled(place_for_all: Places) -> Any:
    """A place that an undisturbed `embed` has filled, and how long that took."""
    made = place_for_all()
    return made, timed(made.embed())


def test_embed_killed_again_and_again_ends_as_if_it_had_not_been(
    filled: Any, place: Places, profile: Any, ledger: Any
) -> None:
    undisturbed = {"embed": filled}
    for trial in range(profile.trials(short=3, long=42)):
        name, random = list(WAYS)[trial % len(WAYS)], profile.random(1, trial)
        if name not in undisturbed:
            made = place(filled[0].slides)
            undisturbed[name] = made, timed(made.embed(*WAYS[name]))
        expected, seconds = undisturbed[name]
        killed, faults, why = place(expected.slides), [], ""
        for _ in range(profile.trials(short=3, long=int(random.integers(1, 5)))):
            n_before = killed.n_there()
            if killed.embed(*WAYS[name]).stop(random.uniform(0, seconds)) != -signal.SIGKILL:
                break
            faults.append(f"{name} killed {during(killed)}")
            why = why or killed.trouble()
            if killed.n_there() < n_before:
                why = why or "embeddings that were there are gone"
        record(ledger, faults, why or ended_well(killed, expected, len(faults), *WAYS[name]))


def test_embed_killed_before_its_images_are_replaced(filled: Any, place: Places, profile: Any, ledger: Any) -> None:
    _, seconds = filled
    for trial in range(profile.trials(short=1, long=10)):
        random = profile.random(2, trial)
        killed, faults, why = place(), [], ""
        for version in range(1, profile.trials(short=2, long=int(random.integers(2, 4)))):
            if killed.embed().stop(random.uniform(0, seconds)) == -signal.SIGKILL:
                faults.append("embed killed, and images replaced before it goes on")
            why = why or killed.trouble()
            for number in random.choice(4, 2, replace=False):
                killed.slides.repaint(int(number), version)
        undisturbed = place(killed.slides)
        last = killed.embed()
        if undisturbed.embed().wait() or last.wait():
            why = why or last.text
        record(ledger, faults, why or killed.trouble() or killed.differences(undisturbed))


def test_two_embeds_at_once_of_which_one_or_both_are_killed(
    filled: Any, place: Places, profile: Any, ledger: Any
) -> None:
    undisturbed, seconds = filled
    for trial in range(profile.trials(short=1, long=12)):
        random = profile.random(3, trial)
        shared, why = place(undisturbed.slides), ""
        both = [shared.embed(), shared.embed()]
        killed = [both[0].stop(random.uniform(0, 1.5 * seconds)) == -signal.SIGKILL]
        if trial % 2:
            killed.append(both[1].stop(random.uniform(0, seconds)) == -signal.SIGKILL)
            fault = "two embeds at once, both killed"
        else:
            fault = "two embeds at once, one killed"
            if both[1].wait() != 0:
                why = f"the one that was not killed failed: {both[1].text}"
            elif shared.n_there() != undisturbed.n_there():
                why = f"the one that was not killed left some: {both[1].text}"
        why = why or ended_well(shared, undisturbed, sum(killed))
        record(ledger, [fault] * any(killed), why)


# ---- told to stop

PROMPT_S = 10.0
"""The longest that a command may take to end once it was told to, on a busy machine."""

TOLD = {signal.SIGTERM: "Stopped by SIGTERM.", signal.SIGINT: "Interrupted."}


def told_to_stop(command: Any, sent: signal.Signals, after: float) -> str | None:
    """Tell a command to stop that has begun to work; what is wrong with its end, None where that was before."""
    command.until(lambda: command.text)
    time.sleep(after)
    began = time.monotonic()
    status = command.send(sent).wait()
    seconds = time.monotonic() - began
    if command.text.splitlines()[-1].startswith(("store: ", "run: ")):
        return None
    if status != 130 or TOLD[sent] not in command.text or "Traceback" in command.text:
        return f"it ended with {status}: {command.text}"
    return f"it took {seconds:.1f} s to end" if seconds > PROMPT_S else ""


def test_embed_that_is_told_to_stop_says_so_and_goes_on(filled: Any, place: Places, profile: Any, ledger: Any) -> None:
    undisturbed, seconds = filled
    for trial in range(profile.trials(short=1, long=24)):
        stopped, sent = place(undisturbed.slides), list(TOLD)[trial % 2]
        why = told_to_stop(stopped.embed(), sent, profile.random(4, trial).uniform(0, 0.7 * seconds))
        faults = [f"embed told to stop by {sent.name}"] * (why is not None)
        record(ledger, faults, why or stopped.trouble() or ended_well(stopped, undisturbed, 1))


# ---- train

RUN_FILES = {
    "config.toml", "split.json", "inputs.json", "run.json", "position.npy", "epochs.csv", "last.pt", "best.pt",
    "rule.json",
}  # fmt: skip

N_EPOCHS = 3


@pytest.fixture(scope="module")
def trained(filled: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A place with embeddings, and a training there that nothing disturbed; how long it took."""
    embedded, _ = filled
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    return embedded, run, timed(embedded.train(run))


def halted(run: Path) -> str:
    """What a training that has just been killed was about, by what it left."""
    if not (run / "run.json").exists():
        return "while it sets its folder up"
    if list(run.glob(".*.pt.part")):
        return "while it writes a checkpoint"
    if not (run / "last.pt").exists():
        return "before its first checkpoint"
    return "after its last epoch" if len(history(run)) == N_EPOCHS else "between two checkpoints"


def history(run: Path) -> list[dict[str, str]]:
    """The rows of epochs.csv without what a clock said; none where it is not there."""
    if not (run / "epochs.csv").exists():
        return []
    with (run / "epochs.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def tensors(file: Path) -> dict[str, bytes]:
    """The bytes of every tensor in a checkpoint, which is a zip file; times lie elsewhere in it."""
    with zipfile.ZipFile(file) as opened:
        return {name: opened.read(name) for name in opened.namelist() if "/data/" in name}


def unlike(run: Path, expected: Path) -> str:
    """How a finished run differs from one that was not disturbed; nothing if it does not."""
    found = {file.name for file in run.iterdir()}
    if found != RUN_FILES:
        return f"it holds {sorted(found)}"
    for name in RUN_FILES - {"epochs.csv", "last.pt"}:
        if (run / name).read_bytes() != (expected / name).read_bytes():
            return f"{name} is not that of an undisturbed run"
    if tensors(run / "last.pt") != tensors(expected / "last.pt"):
        return "the weights are not those of an undisturbed run"
    return "" if history(run) == history(expected) else f"other epochs: {history(run)}"


def left_by_the_killed(run: Path, nucseg: Any) -> str:
    """What is wrong with the folder of a run that was killed: what is in it, and what a report says of it."""
    names = {file.name for file in run.iterdir()} if run.exists() else set()
    strange = {name for name in names if name.removeprefix(".").removesuffix(".part") not in RUN_FILES}
    if strange:
        return f"it left {strange}"
    if "run.json" in names and json.loads((run / "run.json").read_bytes())["status"] == "finished":
        return ""
    told = nucseg("report", run, "--out", run.with_name("no report"))
    if told.wait() != 1 or "Traceback" in told.text:
        return f"a report of it ended with {told.wait()}: {told.text}"
    if "config.toml" in names and not ("is not finished" in told.text and "--resume" in told.text):
        return f"a report of it says: {told.text}"
    return ""


def test_train_killed_again_and_again_ends_with_the_same_weights(
    trained: Any, tmp_path: Path, nucseg: Any, profile: Any, ledger: Any
) -> None:
    embedded, undisturbed, seconds = trained
    for trial in range(profile.trials(short=1, long=25)):
        random = profile.random(5, trial)
        run, faults, why = tmp_path / f"run {trial}", [], ""
        for kill in range(profile.trials(short=1, long=int(random.integers(1, 4)))):
            running = embedded.train(run, *(["--resume"] if kill else []))
            if random.random() < 0.4:
                running.until(lambda: any(run.glob(".*.pt.part")))  # noqa: B023 - called at once
                status = running.send().wait()
            else:
                status = running.stop(random.uniform(0, seconds))
            if status != -signal.SIGKILL:
                break
            faults.append(f"train killed {halted(run)}")
            if profile.name == "long" or not trial:
                why = why or left_by_the_killed(run, nucseg)
        last = embedded.train(run, "--resume")
        record(ledger, faults, why or (unlike(run, undisturbed) if last.wait() == 0 else last.text))


def test_train_that_is_told_to_stop_says_so_and_goes_on(
    trained: Any, tmp_path: Path, profile: Any, ledger: Any
) -> None:
    embedded, undisturbed, seconds = trained
    for trial in range(profile.trials(short=1, long=16)):
        run, sent = tmp_path / f"run {trial}", list(TOLD)[trial % 2]
        command = embedded.train(run)
        why = told_to_stop(command, sent, profile.random(6, trial).uniform(0, 0.7 * seconds))
        faults = [f"train told to stop by {sent.name}"] * (why is not None)
        if not why and command.wait() and "the same command with --resume" not in command.text:
            why = f"it does not say how to go on: {command.text}"
        last = embedded.train(run, "--resume")
        record(ledger, faults, why or (unlike(run, undisturbed) if last.wait() == 0 else last.text))


# ---- the others

REPORT = ("per_image.csv", "report.html", "summary.json", "summary.md")


def test_report_killed_leaves_whole_files_alone(
    trained: Any, tmp_path: Path, nucseg: Any, profile: Any, ledger: Any
) -> None:
    n_trials = profile.trials(short=0, long=8)
    if not n_trials:
        pytest.skip("in the long profile only")
    out, (_, run, _) = tmp_path / "report", trained
    seconds = timed(nucseg("report", run, "--out", out))
    scores = (out / "per_image.csv").read_bytes()
    for trial in range(n_trials):
        random = profile.random(7, trial)
        if random.random() < 0.5:
            shutil.rmtree(out)
        killed = nucseg("report", run, "--out", out).stop(random.uniform(0, seconds)) == -signal.SIGKILL
        names = {file.name for file in out.iterdir() if not file.name.startswith(".report-")} if out.exists() else set()
        torn = [name for name in names if not is_whole(out / name, scores)]
        why = f"torn: {torn}" if torn or not names <= set(REPORT) else ""
        last = nucseg("report", run, "--out", out)
        if last.wait() or {file.name for file in out.iterdir()} != set(REPORT):
            why = why or f"the next report left {sorted(file.name for file in out.iterdir())}: {last.text}"
        record(ledger, ["report killed"] * killed, why)


def is_whole(file: Path, scores: bytes) -> bool:
    """Whether a file of a report is all that it should be."""
    content = file.read_bytes()
    if file.suffix == ".csv":
        return content == scores
    if file.suffix == ".json":
        return bool(json.loads(content))
    return content.endswith(b"\n") if file.suffix == ".md" else content.rstrip().endswith(b"</html>")


def test_verify_killed_has_cleared_nothing_that_is_right(
    filled: Any, place: Places, nucseg: Any, profile: Any, ledger: Any
) -> None:
    undisturbed, _ = filled
    seconds = timed(nucseg("cache", "verify", undisturbed.store))
    for trial in range(profile.trials(short=1, long=10)):
        random, damaged = profile.random(8, trial), copy_of(undisturbed, place)
        (values,) = damaged.store.glob("embeddings/*/identity/values/c")
        file = values / str(random.integers(4)) / "0/0/0"
        file.write_bytes(file.read_bytes()[:-1] + b"!")
        command = nucseg("cache", "verify", damaged.store)
        killed = command.stop(random.uniform(0, seconds)) == -signal.SIGKILL
        nucseg("cache", "verify", damaged.store).wait()
        why = ended_well(damaged, undisturbed, n_kills=1)
        record(ledger, ["cache verify killed"] * killed, why)


def test_prune_killed_leaves_what_it_deletes_whole_or_gone(
    filled: Any, place: Places, nucseg: Any, profile: Any, ledger: Any
) -> None:
    n_trials = profile.trials(short=0, long=12)
    if not n_trials:
        pytest.skip("in the long profile only")
    undisturbed, _ = filled
    both = copy_of(undisturbed, place)
    timed(both.embed("--format", "i8"))
    (key,) = set(keys_of(both)) - set(keys_of(undisturbed))
    seconds = timed(nucseg("cache", "prune", copy_of(both, place).store, "--key", key))
    for trial in range(n_trials):
        pruned = copy_of(both, place)
        prune = ("cache", "prune", pruned.store, "--key", key)
        killed = nucseg(*prune).stop(profile.random(9, trial).uniform(0, seconds)) == -signal.SIGKILL
        why = pruned.trouble()
        again = nucseg(*prune)
        if again.wait() and f"has no embeddings {key}" not in again.text:
            why = why or again.text
        record(ledger, ["cache prune killed"] * killed, why or pruned.differences(undisturbed))


def copy_of(filled: Any, place: Places) -> Any:
    """Another place with the same store."""
    made = place(filled.slides)
    shutil.copytree(filled.store, made.store)
    return made


def keys_of(place: Any) -> list[str]:
    return [folder.name for folder in place.store.joinpath("embeddings").iterdir() if folder.is_dir()]


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


def test_ablate_killed_goes_on_with_the_runs_that_it_has(
    trained: Any, tmp_path: Path, nucseg: Any, profile: Any, ledger: Any
) -> None:
    n_trials = profile.trials(short=0, long=2)
    if not n_trials:
        pytest.skip("its trainings are fresh interpreters: in the long profile only")
    embedded, _, _ = trained
    (tmp_path / "guidance.toml").write_text(RECIPE)

    def ablate(place: str) -> Any:
        where = ("--runs", tmp_path / place / "runs", "--out", tmp_path / place / "out", "--cache", embedded.cache)
        given = ("--encoder", embedded.slides.encoder, "--device", "cpu", "--threads", 1)
        return nucseg("ablate", tmp_path / "guidance.toml", *given, *where)

    seconds = timed(ablate("undisturbed"))
    expected = scores_of(tmp_path / "undisturbed")
    for trial in range(n_trials):
        random = profile.random(10, trial)
        ended = [ablate(f"{trial}").stop(random.uniform(0, seconds)) for _ in range(2)]
        faults = ["ablate killed"] * ended.count(-signal.SIGKILL)
        last = ablate(f"{trial}")
        why = last.text if last.wait() else ""
        if not why and scores_of(tmp_path / f"{trial}") != expected:
            why = "its scores are not those of an undisturbed table"
        record(ledger, faults, why)


def scores_of(folder: Path) -> bytes:
    return (folder / "out" / "mine" / "per_image.csv").read_bytes()


# ---- really fresh interpreters


def test_commands_killed_in_fresh_interpreters(
    filled: Any, trained: Any, place: Places, tmp_path: Path, profile: Any, ledger: Any
) -> None:
    n_trials = profile.trials(short=0, long=2)
    if not n_trials:
        pytest.skip("in the long profile only")
    undisturbed, (_, run, _) = filled[0], trained
    seconds_of_embed = freshly(place(undisturbed.slides).arguments())[0]
    seconds_of_train = freshly(undisturbed.train_arguments(tmp_path / "undisturbed"))[0]
    for trial in range(n_trials):
        random, killed = profile.random(11, trial), place(undisturbed.slides)
        faults, why = killed_freshly(killed.arguments(), random.uniform(0, seconds_of_embed, 2))
        record(ledger, faults, why or killed.differences(undisturbed))
        again = tmp_path / f"{trial}"
        arguments = undisturbed.train_arguments(again, "--resume")
        faults, why = killed_freshly(arguments, random.uniform(0, seconds_of_train, 2))
        record(ledger, faults, why or unlike(again, run))


def freshly(arguments: Sequence[object]) -> tuple[float, str]:
    """Run a command in an interpreter of its own; the seconds that it took, and what it says where it fails."""
    began = time.monotonic()
    command = [sys.executable, "-m", "nucseg_pipeline", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return time.monotonic() - began, done.stderr if done.returncode else ""


def killed_freshly(arguments: Sequence[object], moments: Sequence[float]) -> tuple[list[str], str]:
    """Kill a command at some moments and let it end; what was killed, and what is wrong with its end."""
    command, faults = [sys.executable, "-m", "nucseg_pipeline", *map(str, arguments)], []
    for moment in moments:
        started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(moment)
        started.kill()
        if started.wait() == -signal.SIGKILL:
            faults.append(f"{arguments[0]} killed in a fresh interpreter")
    return faults, freshly(arguments)[1]
