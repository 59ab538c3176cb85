"""Compare corrections of replayed embeddings by their error over D4, on the exact views of a store.

    nucseg embed --dataset nuinsseg --encoder ... --views d4
    python tests/bench/bench_corrections.py CACHE/nuinsseg.zarr

Every correction is fitted on some images and scored on others by the error of `nucseg fidelity`, sum (t - r)^2 /
sum (t - m)^2, over the seven elements other than the identity. Without a store nothing is measured.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nucseg.replay import d4, fit_mixing, position_pattern
from nucseg.views.registry import D4_VIEWS
from nucseg_cache import Embeddings, Store

Correction = Callable[[Tensor, int], Tensor]
"""(embedding, element of D4) -> the corrected moved embedding."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NUCSEG_CACHE", ".")) / "nuinsseg.zarr"
    parser.add_argument("store", type=Path, nargs="?", default=default)
    parser.add_argument("--test-images", type=int, default=8)
    parser.add_argument("--fit-images", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def orbit(views: list[Embeddings], row: int) -> Tensor:
    return torch.from_numpy(np.stack([view.read([row])[0] for view in views]).astype(np.float32))


def scales(orbits: list[Tensor], pattern: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The least-squares factor on T(e - P), one for each channel or each cell."""
    numerator, denominator = torch.zeros_like(pattern), torch.zeros_like(pattern)
    for views in orbits:
        for element in d4.ELEMENTS[1:]:
            moved = d4.apply(views[0] - pattern, element)
            numerator += moved * (views[element] - pattern)
            denominator += moved * moved
    return numerator.sum(axes, keepdim=True) / denominator.sum(axes, keepdim=True)


def truncated(mixing: Tensor, rank: int) -> Tensor:
    """The identity plus a low-rank approximation of each matrix's difference from it."""
    identity = torch.eye(mixing.shape[-1])
    u, s, v = torch.linalg.svd(mixing - identity)
    return identity + u[..., :rank] * s[:, None, :rank] @ v[:, :rank]


def error(correction: Correction, orbits: list[Tensor], means: Tensor) -> float:
    wrong = spread = 0.0
    for views in orbits:
        for element in d4.ELEMENTS[1:]:
            wrong += float((views[element] - correction(views[0], element)).square().sum())
            spread += float((views[element] - means).square().sum())
    return wrong / spread


def mixed(mixing: Tensor, pattern: Tensor) -> Correction:
    def correction(embedding: Tensor, element: int) -> Tensor:
        moved = d4.apply(embedding - pattern, element)
        return (mixing[element] @ moved.flatten(1)).view_as(moved) + pattern

    return correction


def scaled(scale: Tensor | float, pattern: Tensor) -> Correction:
    return lambda embedding, element: scale * d4.apply(embedding - pattern, element) + pattern


def main() -> None:
    options = parse_arguments()
    if not options.store.is_dir():
        print(f"no store at {options.store}: embed a data set with --views d4, and give its store")
        return
    torch.set_num_threads(options.threads)
    store = Store.open(options.store)
    keys = store.keys()
    key = next(key for key in keys if set(D4_VIEWS) <= set(store.views(key)))
    views = [store.embeddings(key, view) for view in ("identity", *D4_VIEWS)]
    complete = set.intersection(*({info.row for info in view.embedded_rows()} for view in views))
    rows = np.random.default_rng(options.seed).permutation(sorted(complete)).tolist()
    tests = [orbit(views, row) for row in rows[: options.test_images]]
    others = rows[options.test_images :]
    pattern = position_pattern(torch.from_numpy(views[0].read([row])) for row in others)
    means = pattern.mean((1, 2), keepdim=True)
    fitted = [orbit(views, row) for row in others[: options.fit_images]]
    of_orbits = position_pattern(fitted)
    mixing = fit_mixing(fitted, pattern)
    corrections: dict[str, Correction] = {
        "plain": scaled(1.0, torch.zeros_like(pattern)),
        "P": scaled(1.0, pattern),
        "P over the orbit": scaled(1.0, of_orbits),
        "P, a scale per cell": scaled(scales(fitted, pattern, (0,)), pattern),
        "P, a scale per channel": scaled(scales(fitted, pattern, (1, 2)), pattern),
        **{f"P, 1 + M of rank {rank}": mixed(truncated(mixing, rank), pattern) for rank in (32, 128)},
        **{f"P, M of {n} images": mixed(fit_mixing(fitted[:n], pattern), pattern) for n in (1, 2, 4, 8, 16)},
        f"P, M of {len(fitted)} images": mixed(mixing, pattern),
        f"P over the orbit, M of {len(fitted)}": mixed(fit_mixing(fitted, of_orbits), of_orbits),
    }
    start = time.perf_counter()
    print(f"{options.store.name}: P of {len(others)} images, fitted on {len(fitted)}, scored on {len(tests)}")
    plain = error(corrections["plain"], tests, means)
    for name, correction in corrections.items():
        found = error(correction, tests, means)
        print(f"{name:<28} {found:.3f}  {found / plain:.2f} of plain", flush=True)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
