"""An S3 server that fails one request in ten: the store is correct in the end, or an error says why.

The server listens on the loopback interface only. A request fails before or after the server has carried it out.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FAILING = """
    import boto3, logging
    import numpy as np
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server
    from nucseg_cache import Store, verify

    logging.disable(logging.CRITICAL)
    slides, encoder, base, seed, n_trials = *sys.argv[1:3], Path(sys.argv[3]), *map(int, sys.argv[4:])
    os.environ |= {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
                   "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null",
                   "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}

    class Failing:
        "A server that fails a share of its requests."

        def __init__(self, app: Any) -> None:
            self.app, self.random, self.lock, self.share, self.n_failed = app, None, threading.Lock(), 0.0, 0

        def __call__(self, environ: Any, start_response: Any) -> Any:
            with self.lock:
                fails, kind = self.share and self.random.random() < self.share, self.random and self.random.integers(4)
                self.n_failed += bool(fails)
            if not fails:
                return self.app(environ, start_response)
            if kind == 0:
                list(self.app(environ, lambda *answer: None))  # carried out, but the client gets an error
            if kind == 3:
                environ["werkzeug.socket"].shutdown(2)
                raise ConnectionError("connection closed")
            status, code = [("500 Internal Server Error", "InternalError"), ("503 Slow Down", "SlowDown")][kind == 2]
            start_response(status, [("Content-Type", "application/xml")])
            return [f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()]

    failing = Failing(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, failing, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = os.environ["AWS_ENDPOINT_URL_S3"] = "http://{}:{}".format(*server.server_address)
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="bucket")

    @contextlib.contextmanager
    def share_fails(share: float, *what: int):
        failing.random, failing.share, failing.n_failed = np.random.default_rng((seed, *what)), share, 0
        yield
        failing.share = 0.0

    def embed(cache: object) -> Any:
        return nucseg("embed", "--dataset", "mine", "--source", slides, "--cache", cache, "--encoder", encoder,
                      "--threads", 1, "--format", "i8", "--limit", 3)

    def objects(prefix: str) -> dict[str, str]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
        names = [found["Key"] for page in pages for found in page.get("Contents", ())]
        read = {name: client.get_object(Bucket="bucket", Key=name)["Body"].read() for name in names}
        return {name.removeprefix(prefix): hashlib.sha256(content).hexdigest() for name, content in read.items()}

    assert embed(base / "undisturbed").exit_code == 0
    right = digests(base / "undisturbed" / "mine.zarr")
    for trial in range(n_trials):
        place = f"s3://bucket/{trial}"
        with share_fails(0.1, trial):
            first = embed(place)
            n_failed = failing.n_failed
        lost, again = wrong(first), embed(place)
        if not lost and (again.exit_code or objects(f"{trial}/mine.zarr/") != right):
            lost = f"once no request fails: {again.output[-400:]}"
        with share_fails(0.1, trial, 1):
            info = nucseg("cache", "verify", f"{place}/mine.zarr", "--keep")
        bad = "bad" in info.stderr or "samples" in info.stderr
        lost = lost or wrong(info) or ("a sound store is reported as damaged: " + info.stderr if bad else "")
        refused = 1 in (first.exit_code, info.exit_code)
        report(refused=refused, n_failed=n_failed, wrong=lost and f"{lost} (it said: {first.stderr[-400:]})")

    if n_trials > 1:  # takes long: every request is retried
        with share_fails(1.0, n_trials):
            never = embed("s3://bucket/never")
        report(refused=never.exit_code == 1, wrong=wrong(never), said=never.stderr)
"""


def test_an_s3_server_that_fails_one_request_in_ten(
    program: Callable[..., list[dict[str, Any]]],
    slides: Path,
    instant_encoder: str,
    profile: Any,
    ledger: Any,
    tmp_path: Path,
) -> None:
    pytest.importorskip("moto.server")
    n_trials = profile.trials(short=1, long=20)

    trials = program(FAILING, slides, instant_encoder, tmp_path, profile.seed, n_trials)

    assert len(trials) == n_trials + (n_trials > 1)
    for trial in trials[:n_trials]:
        assert trial["n_failed"] > 0
        ledger.judge("object store: one S3 request in ten fails", wrong=trial["wrong"], refused=trial["refused"])
    for never in trials[n_trials:]:
        assert never["refused"]
        assert not never["wrong"]
        assert "Check the network" in never["said"]
