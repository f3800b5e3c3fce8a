"""A checkpoint: all that the unfinished lanes of a question need to go on elsewhere, as bytes.

safetensors with JSON in its metadata, so that reading one runs no code; a SHA-256 over both, because
safetensors itself does not notice a changed value. Lanes that go on from a checkpoint, alone and on the
same kind of machine, end with the same bytes as ones that were never interrupted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from proxygrad.engine.lane import LaneState
from proxygrad.errors import CheckpointMismatch
from proxygrad.spec import ModelInfo, Spec

#: Raised whenever the content below changes.
FORMAT = 2


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The states of a question's lanes, in the order of `Result.images`, all after the same step.

    ``question``: what the resolved `Spec` asks (`Spec.canonical`). ``ran_s``: seconds spent so far.
    """

    question: Mapping[str, Any]
    digest: str
    engine_version: str
    ran_s: float
    states: tuple[LaneState, ...]

    @property
    def step(self) -> int:
        """Steps done."""
        return max(0, self._evaluations - 1)

    @property
    def _evaluations(self) -> int:
        return len(self.states[0].curve)

    @classmethod
    def of(cls, spec: Spec, model: ModelInfo, states: Sequence[LaneState], ran_s: float) -> Checkpoint:
        """The checkpoint of the lanes that answer ``spec``, which is resolved, about ``model``."""
        return cls(spec.canonical(), model.digest, model.engine_version, ran_s, tuple(states))

    def check(self, spec: Spec, model: ModelInfo) -> None:
        """Raises `CheckpointMismatch` unless it was taken of ``spec``, resolved, about ``model``."""
        own = {"model digest": self.digest, "engine version": self.engine_version, **self.question}
        asked = {
            "model digest": model.digest,
            "engine version": model.engine_version,
            **spec.canonical(),
        }
        for name in {**asked, **own}:
            unsaid = Spec.model_fields[name].default if name in Spec.model_fields else None
            taken_of, here = own.get(name, unsaid), asked.get(name, unsaid)
            if taken_of != here:
                raise CheckpointMismatch(
                    f"the checkpoint was taken of {name} {taken_of!r}; here it is {here!r}"
                )
        if self._evaluations > spec.steps:
            raise CheckpointMismatch(
                f"the checkpoint has {self._evaluations} evaluations; unfinished are at most {spec.steps}"
            )
        evaluations = {len(state.curve) for state in self.states}
        if len(self.states) != spec.lanes or len(evaluations) > 1:
            raise CheckpointMismatch(
                f"the checkpoint holds {len(self.states)} images after {sorted(evaluations)} evaluations; "
                f"this question has {spec.lanes}, all after as many"
            )

    def to_bytes(self) -> bytes:
        """For `from_bytes`."""
        tensors = {
            f"{number}.{name}": value
            for number, state in enumerate(self.states)
            for name, value in _tensors(state).items()
        }
        about = {
            "format": FORMAT,
            "question": self.question,
            "digest": self.digest,
            "engine_version": self.engine_version,
            "step": self.step,
            "steepest": [(state.steepest, state.steepest_ever) for state in self.states],
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
        states = tuple(
            _state(_numbered(number, tensors), steepest, steepest_ever)
            for number, (steepest, steepest_ever) in enumerate(about["steepest"])
        )
        return cls(about["question"], about["digest"], about["engine_version"], about["ran_s"], states)


def _tensors(state: LaneState) -> dict[str, Tensor]:
    image = {} if state.image is None else {"image": state.image}
    return {
        "params": state.params,
        "generator": state.generator,
        "curve": torch.tensor(state.curve, dtype=torch.float64),
        **{f"rule.{name}": value for name, value in state.rule.items()},
        **image,
    }


def _state(tensors: Mapping[str, Tensor], steepest: float, steepest_ever: float) -> LaneState:
    rule = {name.removeprefix("rule."): value for name, value in tensors.items() if name.startswith("rule.")}
    return LaneState(
        params=tensors["params"],
        rule=rule,
        generator=tensors["generator"],
        curve=tuple(tensors["curve"].tolist()),
        steepest=steepest,
        steepest_ever=steepest_ever,
        image=tensors.get("image"),
    )


def _numbered(number: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of one lane, by their names in its state."""
    own = f"{number}."
    return {name.removeprefix(own): value for name, value in tensors.items() if name.startswith(own)}


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
