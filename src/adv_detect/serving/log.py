"""A log of scored images: digests, sketches and verdicts in parquet files, never pictures."""

from __future__ import annotations

import atexit
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.errors import DataError
from adv_detect.serving.bundle import ScoringBundle
from adv_detect.serving.servable import Servable

VARIABLE = "ADV_DETECT_LOG"
"""Folder of the log; without it nothing is logged."""
ROWS, SECONDS, FILES = 1000, 60.0, 1000
"""Rows after which a file is written, or seconds; files that are kept, the oldest go first."""
DIGEST_DIGITS = 32
SKETCH_BITS = 128
KEPT = ("predicted_class", "adversarial_score", "p_value", "threshold", "is_adversarial", "n_clean")


class WatchedModel(DetectionModel):
    """A detection model that also hands out the last layer's features of what it was asked."""

    def __init__(self, model: DetectionModel) -> None:
        """Share the parts of a model."""
        super().__init__(model.network, model.detector, model.layers, views=model.views, twin=model.twin)
        self._watching = threading.local()
        self.train(model.training)

    def activations(self, images: Tensor) -> Activations:
        """Run the network and keep what the detector reads; note the features while somebody watches."""
        found = super().activations(images)
        seen: list[Tensor] | None = getattr(self._watching, "seen", None)
        if seen is not None:
            seen.append(found.features[self.layers[-1]].detach().cpu())
        return found

    @contextmanager
    def watched(self) -> Iterator[list[Tensor]]:
        """Collect the features of the passes of this thread, ``(n, D)`` each."""
        self._watching.seen = []
        try:
            yield self._watching.seen
        finally:
            self._watching.seen = None


class ScoringLog:
    """Writes a row per scored image; may be called from several threads.

    A row holds ``time`` (UTC), ``digest`` (of the pixels as the network takes them), ``sketch`` (of the features:
    signs of random projections of their difference from the mean class, hexadecimal), ``fpr`` and the verdict.

    Args:
        folder: Where the files go; made if it is not there.
        bundle: Whose scores are logged.
        rows: Rows a file.
        seconds: How long rows wait for a file at most, when more come.
        files: How many files are kept.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        bundle: ScoringBundle,
        *,
        rows: int = ROWS,
        seconds: float = SECONDS,
        files: int = FILES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self._rows, self._seconds, self._files, self._clock = rows, seconds, files, clock
        self._centre = bundle.representatives.centroids[-1].float().mean(dim=0)
        generator = torch.Generator().manual_seed(0)
        self._projections = torch.randn(len(self._centre), SKETCH_BITS, generator=generator)
        self._lock = threading.Lock()
        self._held: list[pd.DataFrame] = []
        self._since = clock()
        folder.mkdir(parents=True, exist_ok=True)
        atexit.register(self.flush)

    @classmethod
    def from_environment(cls, bundle: ScoringBundle, environment: Mapping[str, str] = os.environ) -> ScoringLog | None:
        """Open the log that the environment asks for.

        Args:
            bundle: Whose scores are logged.
            environment: Variables of the process.

        Returns:
            The log; None where none is asked for.

        Raises:
            DataError: The folder cannot be made.
        """
        folder = environment.get(VARIABLE)
        if not folder:
            return None
        try:
            return cls(Path(folder), bundle)
        except OSError as exc:
            raise DataError(f"{VARIABLE}: expected a folder that can be written to, got {folder!r} ({exc})") from exc

    def append(self, images: NDArray[Any], features: Tensor, table: pd.DataFrame, *, fpr: float) -> None:
        """Note scored images.

        Args:
            images: Shape ``(N, channels, H, W)``, as they were scored.
            features: Of the last layer, ``(N, D)``.
            table: Their scores, as of :func:`adv_detect.serving.bundle.score_images`.
            fpr: Rate of the verdict.
        """
        pixels = np.ascontiguousarray(images, dtype=np.float32)
        digests = [hashlib.sha256(one.tobytes()).hexdigest()[:DIGEST_DIGITS] for one in pixels]
        now = pd.Timestamp(self._clock(), unit="s", tz="UTC")
        rows = table[list(KEPT)].assign(time=now, digest=digests, sketch=self.sketches(features), fpr=fpr)
        with self._lock:
            self._held.append(rows)
            due = sum(map(len, self._held)) >= self._rows or self._clock() - self._since >= self._seconds
        if due:
            self.flush()

    def sketches(self, features: Tensor) -> list[str]:
        """Sketch features ``(N, D)``: near features differ in few of the bits."""
        signs = ((features.float() - self._centre) @ self._projections > 0).numpy()
        return [row.tobytes().hex() for row in np.packbits(signs, axis=1)]

    def flush(self) -> None:
        """Write what is held as a file, whole or not at all, and delete the oldest files beyond those kept."""
        with self._lock:
            held, self._held, self._since = self._held, [], self._clock()
            if not held:
                return
            stamp = pd.Timestamp(self._since, unit="s", tz="UTC").strftime("%Y%m%dT%H%M%S%f")
            path = self.folder / f"scores-{stamp}-{uuid4().hex[:8]}.parquet"
            temporary = path.with_name(f".{path.name}.tmp")
            pd.concat(held, ignore_index=True).to_parquet(temporary, index=False)
            temporary.rename(path)
            for old in sorted(self.folder.glob("scores-*.parquet"))[: -self._files]:
                old.unlink(missing_ok=True)


class LoggedBundle:
    """A scoring bundle whose scores are logged.

    Attributes:
        gate: The bundle.
        log: Where to.
    """

    def __init__(self, bundle: ScoringBundle, log: ScoringLog) -> None:
        """Join a bundle and its log."""
        self.gate, self.log = bundle, log

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Facts on the model."""
        return self.gate.metadata

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image."""
        return self.gate.input_shape

    @property
    def rates(self) -> tuple[str, ...]:
        """Names of the rates that a request may give."""
        return self.gate.rates

    @property
    def switches(self) -> tuple[str, ...]:
        """Names of the truth values that a request may give."""
        return self.gate.switches

    def model(self) -> WatchedModel:
        """Join network and detector; features can be watched."""
        return WatchedModel(self.gate.model())

    def score(
        self,
        images: NDArray[Any],
        rates: Mapping[str, float],
        *,
        model: DetectionModel | None = None,
        unwanted: Callable[[], bool] = lambda: False,
    ) -> pd.DataFrame:
        """Score images and log them; see :func:`adv_detect.serving.bundle.score_images`."""
        watched = model if isinstance(model, WatchedModel) else self.model().eval()
        with watched.watched() as seen:
            table = self.gate.score(images, rates, model=watched, unwanted=unwanted)
        if len(table):
            self.log.append(images, torch.cat(seen), table, fpr=float(rates.get("fpr", self.metadata["fpr"])))
        return table

    def save(self, folder: Path) -> None:
        """Write the bundle."""
        self.gate.save(folder)


def with_log(bundle: Servable) -> Servable:
    """Log the scores of a bundle where the environment names a folder.

    Args:
        bundle: What is served; pairs of pictures are not logged.

    Returns:
        The bundle, or one that logs.

    Raises:
        DataError: The folder cannot be made.
    """
    log = ScoringLog.from_environment(bundle) if isinstance(bundle, ScoringBundle) else None
    return bundle if log is None or not isinstance(bundle, ScoringBundle) else LoggedBundle(bundle, log)
