"""Checkpoints: the state of a request's unfinished lanes as bytes, to resume on another worker.

safetensors with JSON in its metadata, so that reading one runs no code; a SHA-256 over both, because
safetensors itself does not notice a changed value. Lanes that resume from a checkpoint, alone and on the
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
FORMAT = 3


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The states of a request's lanes, in the order of `Result.images`, all after the same step.

    ``request``: the canonical form of the resolved `Spec` (`Spec.canonical`). ``ran_s``: seconds so far.
    """

    request: Mapping[str, Any]
    digest: str
    engine_version: str
    ran_s: float
    states: tuple[LaneState, ...]

    @property
    def step(self) -> int:
        """Steps that every lane has done."""
        return max(0, self._evaluations - 1)

    @property
    def _evaluations(self) -> int:
        return len(self.states[0].curve)

    @classmethod
    def of(cls, spec: Spec, model: ModelInfo, states: Sequence[LaneState], ran_s: float) -> Checkpoint:
        """The checkpoint of the lanes of ``spec``, which is resolved, for ``model``."""
        return cls(spec.canonical(), model.digest, model.engine_version, ran_s, tuple(states))

    def check(self, spec: Spec, model: ModelInfo) -> None:
        """Raises `CheckpointMismatch` unless it was taken of ``spec``, resolved, for ``model``."""
        own = {"model digest": self.digest, "engine version": self.engine_version, **self.request}
        expected = {
            "model digest": model.digest,
            "engine version": model.engine_version,
            **spec.canonical(),
        }
        for name in {**expected, **own}:
            default = Spec.model_fields[name].default if name in Spec.model_fields else None
            taken_of, here = own.get(name, default), expected.get(name, default)
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
                f"this request has {spec.lanes}, all after as many"
            )

    def to_bytes(self) -> bytes:
        """The checkpoint as bytes, for `from_bytes`."""
        tensors = {
            f"{number}.{name}": value
            for number, state in enumerate(self.states)
            for name, value in _tensors(state).items()
        }
        about = {
            "format": FORMAT,
            "request": self.request,
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
        """The checkpoint that `to_bytes` wrote. Raises `CheckpointMismatch` where a single bit differs."""
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
        return cls(about["request"], about["digest"], about["engine_version"], about["ran_s"], states)


def _tensors(state: LaneState) -> dict[str, Tensor]:
    optional = {"image": state.image, "samples": state.samples}
    return {
        "params": state.params,
        "generator": state.generator,
        "curve": torch.tensor(state.curve, dtype=torch.float64),
        **{f"rule.{name}": value for name, value in state.rule.items()},
        **{name: value for name, value in optional.items() if value is not None},
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
        samples=tensors.get("samples"),
    )


def _numbered(number: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one lane, by their names in its state."""
    own = f"{number}."
    return {name.removeprefix(own): value for name, value in tensors.items() if name.startswith(own)}


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: 8 bytes with the header's length, little-endian, then its JSON."""
    length = int.from_bytes(data[:8], "little")
    header: dict[str, dict[str, str]] = json.loads(data[8 : 8 + length])
    return header["__metadata__"]


def _sum(about: dict[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
