"""Unusual values of every option of every command."""

import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any, get_args, get_origin

from typer.models import OptionInfo

from nucseg_pipeline.cli import app

NUMBERS = (
    "0", "-1", "nan", "inf", "-inf", "1e400", "9" * 30, "three", "", " ", "1.5", "0x10", "1_000", "\u0661", "1\n",
)  # fmt: skip
TEXTS = (
    "", " ", "no-such-name", "../../x", "~", "~nobody-of-that-name/x", "$HOME/x", "a\nb", "[red]x[/red]",
    "é" * 300, "x" * 5000, "http://", "s3://", "file://", "memory://", "://", "nosuchscheme://x/y", "\udcff", "-",
    "--", "%s%n",
)  # fmt: skip

NEEDED: dict[str, list[object]] = {
    "embed": ["--dataset", "mine", "--encoder", "none"],
    "train": ["--dataset", "mine", "--fusion", "none", "--model", "unet", "--epochs", "1", "--width", "1"],
    "fidelity": ["--dataset", "mine"],
    "distill": ["--dataset", "mine"],
    "report": ["nowhere/run"],
    "figures": ["nowhere/run"],
    "ablate": ["nowhere.toml"],
    "predict": ["nowhere.png", "--run", "nowhere/run", "--out", "out"],
    "datasets": [],
    "models": [],
    "fetch": ["conic"],
    "cache info": ["nowhere.zarr"],
    "cache verify": ["nowhere.zarr"],
    "cache prune": ["nowhere.zarr"],
}
"""The required arguments of each command. The data set does not exist, so that no command goes far."""


def commands() -> Iterator[tuple[str, Callable[..., None]]]:
    """Name and function of each command; does not use typer's own classes, which change between versions."""
    groups = [("", app), *((f"{group.name} ", group.typer_instance) for group in app.registered_groups)]
    for prefix, group in groups:
        yield from ((prefix + command.callback.__name__, command.callback) for command in group.registered_commands)


def parameters(command: Callable[..., None]) -> Iterator[tuple[str, bool]]:
    """Name of each option, empty for an argument, and whether it is a number; without switches."""
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        hint = parameter.annotation
        if get_origin(hint) is not Annotated:  # typer's context
            continue
        kinds = {kind for outer in (hint.__origin__, *get_args(hint.__origin__)) for kind in (outer, *get_args(outer))}
        if bool in kinds:
            continue
        info = hint.__metadata__[0]
        declared = (str(text) for text in (info.default, *(info.param_decls or ())))
        option = next((text for text in declared if text.startswith("--")), f"--{name.replace('_', '-')}")
        yield option if isinstance(info, OptionInfo) else "", bool(kinds & {int, float})


def cases() -> dict[str, tuple[str, str, str]]:
    """Case -> command, option (empty for an argument) and value."""
    return {
        f"{name} {option} {value[:30]!r} {len(value)}": (name, option, value)
        for name, command in commands()
        if name != "demo"
        for option, is_number in parameters(command)
        for value in (NUMBERS if is_number else TEXTS)
    }


def test_all_commands_are_tried() -> None:
    assert {name for name, _ in commands()} == {*NEEDED, "demo"}


def without(needed: list[object], option: str) -> list[object]:
    return [word for i, word in enumerate(needed) if option not in (word, needed[i - 1] if i else "")]


def test_unusual_values(trial: Any, some_of: Any, monkeypatch: Any) -> None:
    for variable in ("NUCSEG_DATA", "NUCSEG_WEIGHTS"):
        monkeypatch.delenv(variable, raising=False)
    chosen: dict[str, tuple[str, str, str]] = some_of(cases(), 20, long=500)
    for case, (command, option, value) in chosen.items():
        folder = trial.new_folder()
        monkeypatch.setenv("NUCSEG_CACHE", str(folder / "cache"))
        monkeypatch.setenv("HOME", str(folder / "home"))
        needed = NEEDED[command]
        words = [*without(needed, option), option, value] if option else [value]
        may_succeed = command in ("models", "datasets") or (command, value) == ("fetch", "--")
        trial(
            "option: unusual value",
            case,
            [*command.split(), *words],
            check=(lambda _: "") if may_succeed else None,
            naming=[option.strip("-").replace("-", "_"), option, value, repr(value)[1:-1], *map(str, needed[:2])],
        )
        assert not (folder / "cache").exists(), case


def test_a_cache_that_is_a_file(trial: Any, dataset: Any) -> None:
    for command in ("embed", "train", "report", "fidelity", "distill", "figures"):
        data = dataset()
        data.cache.write_text("a file")
        words = data.embed if command == "embed" else [command, *NEEDED[command], "--cache", data.cache]
        trial("option: cache that is a file", command, words, naming=["cache", "nowhere/run"])


def test_misspelt_names_get_a_suggestion(trial: Any) -> None:
    fault = "option: misspelt name"
    for case, words, expected in (
        ("data set", ["embed", "--dataset", "nuinseg", "--encoder", "random"], "nuinsseg"),
        ("data set to look up", ["datasets", "cryonuseq"], "cryonuseg"),
        ("encoder", ["embed", "--dataset", "synthetic", "--encoder", "vitb"], "vit_b"),
        ("format", ["embed", "--dataset", "synthetic", "--encoder", "random", "--format", "f61"], "f16"),
        ("views", ["embed", "--dataset", "synthetic", "--encoder", "random", "--views", "stian"], "stain"),
        ("stain", ["embed", "--dataset", "synthetic", "--encoder", "random", "--stain", "macenco"], "macenko"),
        ("model", ["train", "--dataset", "synthetic", "--model", "unet3plu"], "unet3plus"),
        ("fusion", ["train", "--dataset", "synthetic", "--fusion", "xgbf"], "xgfb"),
        ("activation", ["train", "--dataset", "synthetic", "--activation", "gleu"], "glu"),
        ("augmentation", ["train", "--dataset", "synthetic", "--augmentation", "paper"], "papers"),
        ("photometric", ["train", "--dataset", "synthetic", "--photometric", "laboratory"], "laboratories"),
        ("recipe", ["train", "--dataset", "synthetic", "--recipe", "nuinseg"], "nuinsseg"),
        ("table", ["ablate", "fusoin"], "fusion"),
        ("size", ["distill", "--dataset", "synthetic", "--size", "smal"], "small"),
        ("model to look up", ["models", "--model", "unett"], "unet"),
        ("option", ["train", "--datset", "synthetic"], "--dataset"),
        ("command", ["trian"], "train"),
        ("device", ["embed", "--dataset", "synthetic", "--encoder", "random", "--device", "gpu"], "cuda"),
        ("precision", ["embed", "--dataset", "synthetic", "--encoder", "random", "--precision", "fp16"], "float16"),
    ):
        folder = trial.new_folder()
        more = [] if words[0] in ("models", "trian") or "--datset" in words else ["--cache", folder / "cache"]
        more += ["--out", folder / "out", "--runs", folder / "runs", "--quick"] if words[0] == "ablate" else []
        trial(fault, case, [*words, *more], naming=[expected])
        assert not (folder / "cache").exists()
