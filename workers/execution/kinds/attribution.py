"""The computation of an attribution: in the engine's thread, which alone touches networks.

It is one call that cannot be interrupted. Before it, the run may be canceled, given back or lose its lease;
one that is canceled or whose deadline passes meanwhile ends when the call has. The engine's clock counts the
call, so one that takes longer than ``PROXYGRAD_STALL_S`` counts as a hung engine.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from concurrent.futures import Future, wait

import numpy as np

from proxygrad.attribution.explanation import CONTRIBUTIONS, Explanation, explain, image_of
from proxygrad.errors import DeadlineExceeded, LaneError, ProxyGradError, RenderCanceled
from proxygrad.png import read_whole
from proxygrad.protocol.jobs import ArtifactInfo
from workers.errors import InputGone
from workers.execution.compute import PROGRESS_S, check, give_up_engine, of_device
from workers.execution.run import JobRun
from workers.jobs.inputs import read_input
from workers.jobs.kinds.attribution import AttributionJob

_MEDIA_TYPES = {"png": "image/png", "npy": "application/x-npy"}


def compute(run: JobRun, job: AttributionJob) -> AttributionFiles:
    """Attribute what ``job`` asks. Raises what `explain` raises, `InputGone`, and what `JobRun.proceed` does.

    `LaneError` for whatever else goes wrong in the network.
    """
    run.enter("reading")
    npy = read_input(run.runtime.store, job.id, job.spec.image.sha256, run.proceed)
    if npy is None:
        raise InputGone(job.id)
    image = image_of(npy)
    run.enter("loading")
    with run.runtime.models.lent(job.spec.model) as network:
        check(network, job)
        run.proceed()
        run.enter("computing")
        try:
            call = run.runtime.engine.call(lambda: explain(network, image, job.spec, {"id": job.id}))
            return AttributionFiles(job, _followed(run, job, call))
        except RenderCanceled:
            run.stay()
            if not run.canceled.is_set():
                give_up_engine(run)
            raise
        except LaneError as error:
            of_device(run, error)
            raise


def _followed(run: JobRun, job: AttributionJob, call: Future[Explanation]) -> Explanation:
    """What comes of the call; the run ends before, where it may."""
    try:
        while not wait([call], PROGRESS_S).done:
            if call.running():
                run.stay()
            else:
                run.proceed()
                _check_deadline(run, job)
        found = call.result()
    except ProxyGradError:
        raise
    except Exception as error:
        raise LaneError(f"{type(error).__name__}: {error}") from error
    finally:
        call.cancel()
    run.stay()
    if run.canceled.is_set():
        raise RenderCanceled("canceled while it was computed")
    _check_deadline(run, job)
    return found


def _check_deadline(run: JobRun, job: AttributionJob) -> None:
    left_s = run.deadline_s(run.deadline_at)
    if left_s is not None and left_s <= 0:
        raise DeadlineExceeded(0, 1, (run.deadline_at or 0.0) - job.created_at)


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
        return {"step": 1, "activation": self._result.value, "result": self._result, "files": files}


def _describe(name: str, data: bytes) -> ArtifactInfo:
    media_type = _MEDIA_TYPES[name.rpartition(".")[2]]
    return ArtifactInfo(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data), media_type=media_type)
