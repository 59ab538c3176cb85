"""Encode in this process; `dask_coordinator.DaskBackend` encodes with Dask workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from nucseg.data import Entry
from nucseg.encoders import Encoder
from nucseg_cache import Key, Store
from nucseg_pipeline.embed.decoded_images import DecodedImages
from nucseg_pipeline.embed.encode import EncodingRun
from nucseg_pipeline.embed.estimate import OnEstimate
from nucseg_pipeline.embed.view_target import ViewTarget
from nucseg_pipeline.progress import Progress


class LocalBackend:
    """The encoder of this process."""

    def __init__(
        self, encoder: Encoder, store: Store, wanted: Mapping[int, Entry], decoded: DecodedImages, progress: Progress
    ) -> None:
        self._encoder, self._store, self._wanted, self._decoded = encoder, store, wanted, decoded
        self._progress = progress
        self.identity, self.provenance, self.note = encoder.identity, encoder.provenance, encoder.note

    def encode(
        self,
        key: Key,
        targets: Sequence[ViewTarget],
        missing: Sequence[Sequence[int]],
        failures: dict[str, str],
        on_estimate: OnEstimate,
    ) -> Counter[str]:
        """Encode the missing rows of the targets of a key: the unchanged images first, then their views.

        Args:
            key: of the embeddings.
            targets: that of the unchanged images first.
            missing: the missing rows of each target.
            failures: id -> why its image could not be used; added to.
            on_estimate: called once, when the speed is known.

        Returns:
            Embeddings made, by the name of the view.

        Raises:
            NucsegError, CacheError: what stopped the encoder; all that is written is kept.
        """
        run = EncodingRun(
            self._encoder, self._store, self._wanted, failures, sum(map(len, missing)), self._progress, on_estimate,
            self._decoded,
        )  # fmt: skip
        run.run(targets[:1], missing[:1])
        run.run(targets[1:], missing[1:])
        return run.n_encoded
