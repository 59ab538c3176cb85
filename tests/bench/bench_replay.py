"""Cost of replay and colours: drawing, and changing a batch, as a share of a training step on it, in one run.

    python tests/bench/bench_replay.py --width 8 --batch-size 8 --threads 2

The step (forward, loss, backward, Adam, with the embedding at every scale) and the replays alternate over several
rounds, each with another epoch, and the fastest round of each counts. Replay means everything that an augmentation adds
to a step: drawing the motions, moving images, masks and embeddings. Training draws motions in parallel with the
previous step; here drawing is counted in full. Colours are those of `--photometric laboratories`, which training
changes in the thread that reads. Ratios are of processor time, on a GPU of elapsed time.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from bench_train_step import Variant, make_step, time_in_turns

from nucseg.photometric import PhotometricRecipe
from nucseg.replay import Geometry, Replay
from nucseg.views.registry import D4_VIEWS
from nucseg_pipeline.loading.batch import Batch
from nucseg_pipeline.train.augmentation import Augmentation

GRID, CHANNELS = 64, 256


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="eunet3plus")
    parser.add_argument("--width", type=int, default=8, help="the papers use 32: minutes per step on a CPU")
    parser.add_argument("--precision", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--fusion", default="multiscale")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--side-px", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def make_batch(options: argparse.Namespace) -> Batch:
    n, side = options.batch_size, options.side_px
    return Batch(
        ids=tuple(f"image {number}" for number in range(n)),
        image=torch.rand(n, 3, side, side),
        target=(torch.rand(n, side, side) < 0.2).long(),
        ignore=torch.zeros(n, side, side, dtype=torch.bool),
        embedding=(0.1 * torch.randn(n, CHANNELS, GRID, GRID)).half(),
    ).to(torch.device(options.device))


def augmentations(device: torch.device) -> dict[str, Augmentation]:
    pattern, mixing = torch.randn(CHANNELS, GRID, GRID), torch.randn(8, CHANNELS, CHANNELS)
    replays = {
        "plain": Replay(),
        "corrected": Replay(pattern).to(device),
        "learned": Replay(pattern, mixing).to(device),
    }
    found = {}
    for name in ("d4", "papers"):
        geometry = Geometry.named(name)
        for replay_name, replay in replays.items():
            found[f"{name}, {replay_name}"] = Augmentation(geometry, replay)
        found[f"{name}, exact views"] = Augmentation(geometry, replays["corrected"], D4_VIEWS)
    return found


def make_replay(augmentation: Augmentation, batch: Batch, options: argparse.Namespace) -> Callable[[], None]:
    epoch = iter(range(10**6))

    def replay() -> None:
        motions = augmentation.geometry.motions(0, next(epoch), batch.ids, side=options.side_px)
        augmentation.apply(batch, motions)
        if options.device != "cpu":
            torch.accelerator.synchronize()

    return replay


def make_colours(options: argparse.Namespace) -> Callable[[], None]:
    recipe, epoch = PhotometricRecipe.named("laboratories"), iter(range(10**6))
    image = np.random.default_rng(0).integers(0, 256, (options.side_px, options.side_px, 3), dtype=np.uint8)

    def colours() -> None:
        drawn = next(epoch)
        for number in range(options.batch_size):
            recipe.apply(image, 0, drawn, str(number))

    return colours


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    step, _ = make_step(Variant(options.width, options.fusion, "contiguous", options.precision), options)
    batch = make_batch(options)
    replays = augmentations(torch.device(options.device))
    steps = [step, *(make_replay(augmentation, batch, options) for augmentation in replays.values())]
    steps.append(make_colours(options))
    start = time.perf_counter()
    seconds = time_in_turns(steps, options.rounds)
    clock = 1 if options.device == "cpu" else 0  # processor or elapsed time
    print(
        f"{options.model}, width {options.width}, {options.fusion}, {options.precision}, batch {options.batch_size}, "
        f"{options.device}, {torch.get_num_threads()} threads; {time.perf_counter() - start:.0f} s"
    )
    print("                          seconds  cpu s  share of the step")
    for name, times in zip(["training step", *replays, "colours, laboratories"], seconds, strict=True):
        print(f"{name:<24} {times[0]:>8.3f} {times[1]:>6.3f} {100 * times[clock] / seconds[0][clock]:>8.1f} %")


if __name__ == "__main__":
    main()
