"""Every option of every command with what people, scripts and environments put there."""

import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any, get_args, get_origin

from typer.models import OptionInfo

from nucseg_pipeline.cli import app

NUMBERS = (
    "0",
    "-1",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "9" * 30,
    "three",
    "",
    " ",
    "1.5",
    "0x10",
    "1_000",
    "\u0661",
    "1\n",
)
TEXTS = (
    "",
    " ",
    "no-such-name",
    "../../x",
    "~",
    "~nobody-of-that-name/x",
    "$HOME/x",
    "a\nb",
    "[red]x[/red]",
    "é" * 300,
    "x" * 5000,
    "http://",
    "s3://",
    "file://",
    "memory://",
    "://",
    "nosuchscheme://x/y",
    "\udcff",
    "-",
    "--",
    "%s%n",
)

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
"""What each command needs; there is no data set, so that none of them gets far with an option that is right."""


def commands() -> Iterator[tuple[str, Callable[..., None]]]:
    """Name and function of each command; typer's own classes change from one version to the next."""
    groups = [("", app), *((f"{group.name} ", group.typer_instance) for group in app.registered_groups)]
    for prefix, group in groups:
        yield from ((prefix + one.callback.__name__, one.callback) for one in group.registered_commands)


def parameters(command: Callable[..., None]) -> Iterator[tuple[str, bool]]:
    """Option, empty where it is an argument, and whether it is a number; switches are left out."""
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        hint = parameter.annotation
        if get_origin(hint) is not Annotated:  # typer's context
            continue
        kinds = {kind for part in (hint.__origin__, *get_args(hint.__origin__)) for kind in (part, *get_args(part))}
        if bool not in kinds:
            about = hint.__metadata__[0]
            named = next(
                (flag for flag in (about.default, *(about.param_decls or ())) if str(flag).startswith("--")),
                f"--{name.replace('_', '-')}",
            )
            yield named if isinstance(about, OptionInfo) else "", bool(kinds & {int, float})


def cases() -> dict[str, tuple[str, str, str]]:
    """Case -> command, option and value; an argument, which has no option, stands for itself."""
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
    return [one for i, one in enumerate(needed) if option not in (one, needed[i - 1] if i else "")]


def test_every_option_with_every_odd_value(trial: Any, some_of: Any, monkeypatch: Any) -> None:
    for variable in ("NUCSEG_DATA", "NUCSEG_WEIGHTS"):
        monkeypatch.delenv(variable, raising=False)
    chosen: dict[str, tuple[str, str, str]] = some_of(cases(), 40, long=500)
    for case, (command, option, value) in chosen.items():
        place = trial.fresh()
        monkeypatch.setenv("NUCSEG_CACHE", str(place / "cache"))
        monkeypatch.setenv("HOME", str(place / "home"))
        needed = NEEDED[command]
        words = [*without(needed, option), option, value] if option else [value]
        if command in ("models", "datasets") or (command, value) == ("fetch", "--"):
            right: Callable[[Any], str] | None = lambda _: ""  # noqa: E731
        else:
            right = None
        trial(
            "option of an odd value",
            case,
            [*command.split(), *words],
            right=right,
            seconds=30,
            naming=[option.strip("-").replace("-", "_"), option, value, repr(value)[1:-1], *map(str, needed[:2])],
        )
        assert not (place / "cache").exists(), case


def test_a_cache_that_is_a_file(trial: Any, slides: Any) -> None:
    fault = "cache or result in a place that cannot be"
    for command in ("embed", "train", "report", "fidelity", "distill", "figures"):
        data = slides()
        data.cache.write_text("a file")
        words = data.embed if command == "embed" else [command, *NEEDED[command], "--cache", data.cache]
        trial(fault, f"{command}: the cache is a file", words, naming=["cache", "nowhere/run"])


def test_names_that_are_nearly_right_are_suggested(trial: Any) -> None:
    fault = "name that is nearly right"
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
        ("recipe", ["train", "--dataset", "synthetic", "--recipe", "nuinseg"], "nuinsseg"),
        ("table", ["ablate", "fusoin"], "fusion"),
        ("size", ["distill", "--dataset", "synthetic", "--size", "smal"], "small"),
        ("model to look up", ["models", "--model", "unett"], "unet"),
        ("option", ["train", "--datset", "synthetic"], "--dataset"),
        ("command", ["trian"], "train"),
        ("device", ["embed", "--dataset", "synthetic", "--encoder", "random", "--device", "gpu"], "cuda"),
        ("precision", ["embed", "--dataset", "synthetic", "--encoder", "random", "--precision", "fp16"], "float16"),
    ):
        place = trial.fresh()
        more = [] if words[0] in ("models", "trian") or "--datset" in words else ["--cache", place / "cache"]
        more += ["--out", place / "out", "--runs", place / "runs", "--quick"] if words[0] == "ablate" else []
        trial(fault, case, [*words, *more], naming=[expected])
        assert not (place / "cache").exists()
