"""An encoder with a random limit on its memory: it takes smaller batches or fails with one message."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_MIB = 100
"""Enough for a batch of all images."""

LIMITED = """
    import resource
    import numpy as np
    from nucseg.encoders.random_vit import VitEncoder
    from nucseg_cache import Store, verify
    from nucseg_pipeline.embed import stage as imported_before_the_fork

    slides, base, seed, n_trials, most_mib = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
    unlimited = VitEncoder._embed

    def limited_to(more: float) -> None:
        "Limit the network to `more` bytes beyond what the process has, so that torch's allocation fails."
        def embed(self: Any, inputs: Any) -> Any:
            status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            most = int(status["VmData"].split()[0]) * 1024 + int(more)
            resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))
            try:
                return unlimited(self, inputs)
            finally:
                resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        VitEncoder._embed = embed

    def embed(cache: Path, more: float | None = None) -> dict[str, Any]:
        "Embed in a new process, whose allocator has no memory to reuse."
        reading, writing = os.pipe()
        if not os.fork():
            if more is not None:
                limited_to(more)
            done = nucseg("embed", "--dataset", "mine", "--source", slides, "--cache", cache, "--encoder", "random",
                          "--threads", 1, "--batch-size", 6)
            os.write(writing, json.dumps({"code": done.exit_code, "wrong": wrong(done), "said": done.output}).encode())
            os._exit(0)
        os.close(writing)
        os.wait()
        with open(reading) as file:
            return json.load(file)

    assert embed(base / "undisturbed")["code"] == 0
    for trial in range(n_trials):
        cache = base / f"limited {trial}"
        more = (trial + np.random.default_rng((seed, trial)).uniform()) / n_trials * most_mib * (1 << 20)
        limited = embed(cache, more)
        again, lost = embed(cache), limited["wrong"]
        found, expected = (Store.open(folder / "mine.zarr") for folder in (cache, base / "undisturbed"))
        (key,), rows = expected.keys(), range(expected.n_rows)
        values, right = (np.asarray(store.embeddings(key).read(rows), np.float32) for store in (found, expected))
        # float32 sums depend on the batch size
        if not lost and (again["code"] or verify(found.location).findings or np.abs(values - right).max() > 0.01):
            lost = f"without the limit: {again['said'][-300:]}"
        report(refused=limited["code"] != 0, wrong=lost and f"{lost} (it said: {limited['said'][-500:]})",
               halved="continuing with 1" in limited["said"])
        shutil.rmtree(cache)
"""


def test_embedding_with_little_memory(
    program: Callable[..., list[dict[str, Any]]], slides: Path, profile: Any, ledger: Any, tmp_path: Path
) -> None:
    n_trials = profile.trials(short=2, long=50)

    trials = program(LIMITED, slides, tmp_path, profile.seed, n_trials, MAX_MIB)

    assert len(trials) == n_trials
    for trial in trials:
        ledger.judge("encoder: out of memory", wrong=trial["wrong"], refused=trial["refused"])
    # the limits include some between those of all images and of one
    assert any(trial["halved"] for trial in trials)
