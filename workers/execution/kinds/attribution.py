"""The computation of an attribution: in turns of the engine's thread, which alone touches networks.

A turn is a few of its steps. Between two turns the lanes of visualizations go on, and the run may be
canceled, given back, lose its lease or pass its deadline. The engine's clock counts each turn for itself.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from typing import TypeVar

import numpy as np
from torch import Tensor

from proxygrad.attribution.explanation import CONTRIBUTIONS, Explanation, SlicedExplanation, pixels_of
from proxygrad.errors import DeadlineExceeded, LaneError, ProxyGradError, RenderCanceled
from proxygrad.networks.network import Network
from proxygrad.png import read_whole
from proxygrad.protocol.jobs import ArtifactInfo
from workers.errors import InputGone
from workers.execution.compute import PROGRESS_S, check, give_up_engine, of_device
from workers.execution.run import JobRun
from workers.jobs.inputs import INPUT, REFERENCES, read_input
from workers.jobs.kinds.attribution import AttributionJob

T = TypeVar("T")

_MEDIA_TYPES = {"png": "image/png", "npy": "application/x-npy"}


def compute(run: JobRun, job: AttributionJob) -> AttributionFiles:
    """Attribute what ``job`` asks. Raises what `SlicedExplanation` raises, `InputGone`, `RenderCanceled`,
    `DeadlineExceeded`, `LeaseLost` and `GivenBack`; `LaneError` for whatever else goes wrong in the network.
    """
    run.enter("reading")
    sent = job.spec.reference_images
    image = _pixels(run, job, INPUT, job.spec.image.sha256)
    references = None if sent is None else _pixels(run, job, REFERENCES, sent.sha256)
    run.enter("loading")
    with run.runtime.models.lent(job.spec.model) as network:
        check(network, job)
        run.proceed()
        run.enter("computing")
        try:
            explanation = _Turns(run, job).explanation(network, image, references)
        except RenderCanceled:
            run.stay()
            if not run.canceled.is_set():
                give_up_engine(run)
            raise
        except LaneError as error:
            of_device(run, error)
            raise
        return AttributionFiles(job, explanation)


def _pixels(run: JobRun, job: AttributionJob, name: str, sha256: str) -> Tensor:
    npy = read_input(run.runtime.store, job.id, sha256, run.proceed, name)
    if npy is None:
        raise InputGone(job.id)
    return pixels_of(npy)


class _Turns:
    """The turns of one run. ``step``: of the job's steps, how many are done."""

    def __init__(self, run: JobRun, job: AttributionJob) -> None:
        self._run = run
        self._job = job
        self._step = 0
        self._began_s = self._written_s = time.monotonic()

    def explanation(self, network: Network, image: Tensor, references: Tensor | None) -> Explanation:
        """From the first turn to the last."""
        job = self._job
        if job.step:  # of an earlier run
            self._run.runtime.leases.write(self._run.run, {"step": 0})
        sliced = self._turn(lambda: SlicedExplanation(network, image, job.spec, references, {"id": job.id}))
        while sliced.step < sliced.steps:
            self._turn(sliced.advance)
            self._step = sliced.step
            self._write_progress()
        return self._turn(sliced.finish)

    def _turn(self, function: Callable[[], T]) -> T:
        """What ``function`` returns in the engine's thread. Ends the run before, while that is possible."""
        self._check()
        call = self._run.runtime.engine.call(function)
        try:
            while not wait([call], PROGRESS_S).done:
                self._run.stay()
                if not call.running():
                    self._check()
            return call.result()
        except ProxyGradError:
            raise
        except Exception as error:
            raise LaneError(f"{type(error).__name__}: {error}") from error
        finally:
            call.cancel()

    def _check(self) -> None:
        """Return while the run may take another turn."""
        run, steps = self._run, self._job.steps
        run.stay()
        if run.canceled.is_set():
            reached = f"after step {self._step} of {steps}" if self._step else "before its first step"
            raise RenderCanceled(f"canceled {reached}")
        left_s = run.deadline_s(run.deadline_at)
        if left_s is not None and left_s <= 0:
            raise DeadlineExceeded(self._step, steps, (run.deadline_at or 0.0) - self._job.created_at)
        drain = run.runtime.drain
        if drain.begun.is_set() and not drain.fits(self._remaining_s):
            run.give_back()

    @property
    def _remaining_s(self) -> float | None:
        """To the end, at the pace so far; None before the first step."""
        if not self._step:
            return None
        return (time.monotonic() - self._began_s) / self._step * (self._job.steps - self._step)

    def _write_progress(self) -> None:
        """As often as that of visualizations."""
        if time.monotonic() - self._written_s >= PROGRESS_S:
            self._written_s = time.monotonic()
            self._run.runtime.leases.write(self._run.run, {"step": self._step}, remaining_s=self._remaining_s)


class AttributionFiles:
    """The files of a run. An attribution is the same whenever it is computed, but for rounding."""

    def __init__(self, job: AttributionJob, explanation: Explanation) -> None:
        self._job = job
        self._result = explanation.result
        self.files: Mapping[str, bytes] = explanation.files

    def accepts(self, name: str, stored: bytes) -> bool:
        """Whether it is whole, and of the same job."""
        try:
            if name == CONTRIBUTIONS:
                array = np.load(io.BytesIO(stored), allow_pickle=False)
                return array.shape == self._result.shape and bool(np.isfinite(array).all())
            return read_whole(stored).get("id") == self._job.id
        except (ValueError, EOFError, OSError):
            return False

    def fields(self, stored: Mapping[str, bytes]) -> Mapping[str, object]:
        """Result and files."""
        files = {name: _describe(name, data) for name, data in stored.items()}
        return {
            "step": self._job.steps,
            "activation": self._result.value,
            "result": self._result,
            "files": files,
        }


def _describe(name: str, data: bytes) -> ArtifactInfo:
    media_type = _MEDIA_TYPES[name.rpartition(".")[2]]
    return ArtifactInfo(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data), media_type=media_type)
