"""The computation of the kind of job in `statistics_kind`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from proxygrad.protocol.jobs import ArtifactInfo
from tests.support.statistics_kind import FILE, StatisticsJob, StatisticsResult
from workers.execution.compute import check
from workers.execution.run import JobRun

STEP_S = 0.02


@dataclass(frozen=True)
class Measurement:
    mean: float
    steps: int

    @property
    def files(self) -> Mapping[str, bytes]:
        return {FILE: json.dumps({"mean": self.mean}).encode()}

    def accepts(self, name: str, stored: bytes) -> bool:
        return stored == self.files[name]

    def fields(self, stored: Mapping[str, bytes]) -> Mapping[str, object]:
        data = stored[FILE]
        return {
            "step": self.steps,
            "activation": self.mean,
            "result": StatisticsResult(mean=self.mean),
            "file": ArtifactInfo(
                sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data), media_type="application/json"
            ),
        }


def compute(run: JobRun, job: StatisticsJob) -> Measurement:
    mean = 0.0
    run.enter("loading")
    with run.runtime.models.lent(job.spec.model) as network:
        check(network, job)
        run.enter("computing")
        for step in range(1, job.spec.steps + 1):
            run.proceed()
            mean = measure(network.module, job.spec.layer, network.info.input_shape, job.spec.level)
            run.runtime.leases.write(run.run, {"step": step, "activation": mean})
            run.canceled.wait(STEP_S)
        run.proceed()
    return Measurement(mean, job.spec.steps)


def measure(module: torch.nn.Module, layer: str, shape: tuple[int, ...], level: float) -> float:
    """The mean of the layer's output on an image of that gray."""
    seen: list[float] = []

    def hook(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        seen.append(float(output.mean()))

    handle = module.get_submodule(layer).register_forward_hook(hook)
    try:
        with torch.inference_mode():
            module(torch.full((1, *shape), level))
    finally:
        handle.remove()
    return seen[0]
