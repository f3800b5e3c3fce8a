"""A checkpoint: all that an unfinished lane needs to go on elsewhere, as bytes.

safetensors with JSON in its metadata, so that reading one runs no code; a SHA-256 over both, because
safetensors itself does not notice a changed value. A lane that goes on from a checkpoint, alone and on the
same kind of machine, ends with the same bytes as one that was never interrupted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from proxygrad.errors import CheckpointMismatch
from proxygrad.lane import LaneState
from proxygrad.spec import ModelInfo, Spec

#: Raised whenever the content below changes.
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A lane's state, and what it is the state of.

    ``question``: the resolved `Spec` without its preset, which is spelt out. ``ran_s``: seconds spent so far.
    """

    question: Mapping[str, Any]
    digest: str
    engine_version: str
    ran_s: float
    state: LaneState

    @property
    def step(self) -> int:
        """Steps done."""
        return max(0, len(self.state.curve) - 1)

    @classmethod
    def of(cls, spec: Spec, model: ModelInfo, state: LaneState, ran_s: float) -> Checkpoint:
        """The checkpoint of a lane that answers ``spec``, which is resolved, about ``model``."""
        return cls(_question(spec), model.digest, model.engine_version, ran_s, state)

    def check(self, spec: Spec, model: ModelInfo) -> None:
        """Raises `CheckpointMismatch` unless it was taken of ``spec``, resolved, about ``model``."""
        own = {"model digest": self.digest, "engine version": self.engine_version, **self.question}
        asked = {
            "model digest": model.digest,
            "engine version": model.engine_version,
            **_question(spec),
        }
        for name in {**asked, **own}:
            if own.get(name) != asked.get(name):
                raise CheckpointMismatch(
                    f"the checkpoint was taken of {name} {own.get(name)!r}; here it is {asked.get(name)!r}"
                )
        if len(self.state.curve) > spec.steps:
            raise CheckpointMismatch(
                f"the checkpoint has {len(self.state.curve)} evaluations; unfinished are at most {spec.steps}"
            )

    def to_bytes(self) -> bytes:
        """For `from_bytes`."""
        tensors = {
            "params": self.state.params,
            "generator": self.state.generator,
            "curve": torch.tensor(self.state.curve, dtype=torch.float64),
            **{f"rule.{name}": value for name, value in self.state.rule.items()},
        }
        if self.state.image is not None:
            tensors["image"] = self.state.image
        about = {
            "format": FORMAT,
            "question": self.question,
            "digest": self.digest,
            "engine_version": self.engine_version,
            "step": self.step,
            "steepest": self.state.steepest,
            "steepest_ever": self.state.steepest_ever,
            "ran_s": self.ran_s,
        }
        sealed = {"about": about, "sha256": _sum(about, tensors)}
        # One key alone: safetensors writes several in any order, and one state should give one file.
        return safetensors.torch.save(tensors, metadata={"checkpoint": json.dumps(sealed, sort_keys=True)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint:
        """What `to_bytes` wrote. Raises `CheckpointMismatch` for anything else, if by a single bit."""
        try:
            sealed = json.loads(_metadata(data)["checkpoint"])
            tensors = safetensors.torch.load(data)
            if _sum(sealed["about"], tensors) != sealed["sha256"]:
                raise CheckpointMismatch("the checkpoint is damaged: its checksum does not fit its content")
            return cls._read(sealed["about"], tensors)
        except CheckpointMismatch:
            raise
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise CheckpointMismatch(
                f"these {len(data)} bytes are no checkpoint, or a damaged one: "
                f"{type(error).__name__} {reason}"
            ) from error

    @classmethod
    def _read(cls, about: dict[str, Any], tensors: dict[str, Tensor]) -> Checkpoint:
        if about["format"] != FORMAT:
            raise CheckpointMismatch(
                f"the checkpoint has format {about['format']}; this version reads {FORMAT}"
            )
        state = LaneState(
            params=tensors["params"],
            rule={
                name.removeprefix("rule."): value
                for name, value in tensors.items()
                if name.startswith("rule.")
            },
            generator=tensors["generator"],
            curve=tuple(tensors["curve"].tolist()),
            steepest=about["steepest"],
            steepest_ever=about["steepest_ever"],
            image=tensors.get("image"),
        )
        return cls(about["question"], about["digest"], about["engine_version"], about["ran_s"], state)


def _question(spec: Spec) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude={"preset"})


def _metadata(data: bytes) -> dict[str, str]:
    """Of a safetensors file: 8 bytes with the header's length, least first, then the header as JSON."""
    length = int.from_bytes(data[:8], "little")
    header: dict[str, dict[str, str]] = json.loads(data[8 : 8 + length])
    return header["__metadata__"]


def _sum(about: dict[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
