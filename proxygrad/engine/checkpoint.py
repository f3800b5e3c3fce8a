"""Checkpoints: the state of a request's unfinished lanes as bytes, to resume on another worker.

safetensors with JSON in its metadata, so that reading one runs no code; a SHA-256 over both, because
safetensors itself does not notice a changed value. Lanes that resume from a checkpoint, alone and on the
same kind of machine, end with the same bytes as ones that were never interrupted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from proxygrad.engine.lane import Lane, LaneState
from proxygrad.errors import CheckpointMismatch
from proxygrad.spec import ModelInfo, Spec

#: What a state holds besides its tensors.
_NUMBERS = ("steepest", "steepest_ever", "silent_at", "trial")
#: Raised whenever the content below changes.
FORMAT = 4


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The states of a request's lanes by their numbers, all after the same step: of every start while they
    compete, then of those that were chosen.

    ``request``: the canonical form of the resolved `Spec` (`Spec.canonical`). ``ran_s``: seconds so far.
    """

    request: Mapping[str, Any]
    digest: str
    engine_version: str
    ran_s: float
    states: Mapping[int, LaneState]

    @property
    def step(self) -> int:
        """Steps that every lane has done."""
        return max(0, self._evaluations - 1)

    @property
    def _evaluations(self) -> int:
        return max(len(state.curve) for state in self.states.values())

    @classmethod
    def of(cls, spec: Spec, model: ModelInfo, states: Mapping[int, LaneState], ran_s: float) -> Checkpoint:
        """The checkpoint of the lanes of ``spec``, which is resolved, for ``model``."""
        return cls(spec.canonical(), model.digest, model.engine_version, ran_s, dict(states))

    def drop(self, lanes: Sequence[Lane]) -> None:
        """Of all lanes of the request, drop those that are not in here."""
        for number, lane in enumerate(lanes):
            state = self.states.get(number)
            lane.dropped = state is None
            if state is not None and state.trial and lane.trial is not None:
                lane.trial.scores = state.trial

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
        evaluations = {len(state.curve) for state in self.states.values()}
        if not _covers(self.states, spec, self.step) or len(evaluations) > 1:
            raise CheckpointMismatch(
                f"the checkpoint holds images {sorted(self.states)} after {sorted(evaluations)} evaluations; "
                f"this request has {spec.lanes}, all after as many"
            )

    def to_bytes(self) -> bytes:
        """The checkpoint as bytes, for `from_bytes`."""
        tensors = {
            f"{number}.{name}": value
            for number, state in self.states.items()
            for name, value in _tensors(state).items()
        }
        about = {
            "format": FORMAT,
            "request": self.request,
            "digest": self.digest,
            "engine_version": self.engine_version,
            "step": self.step,
            "lanes": {
                str(number): {name: getattr(state, name) for name in _NUMBERS}
                for number, state in self.states.items()
            },
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
        states = {
            int(number): _state(_numbered(number, tensors), numbers)
            for number, numbers in about["lanes"].items()
        }
        return cls(about["request"], about["digest"], about["engine_version"], about["ran_s"], states)


def _covers(states: Collection[int], spec: Spec, step: int) -> bool:
    """Whether lanes of these numbers can be what is left of ``spec`` after so many steps."""
    images = [number // spec.starts for number in states]
    chosen = spec.trial_steps is None or step >= spec.trial_steps
    whole = set(images) == set(range(spec.lanes // spec.starts))
    return whole and (not chosen or len(images) == len(set(images)))


def _tensors(state: LaneState) -> dict[str, Tensor]:
    optional = {"image": state.image, "samples": state.samples}
    return {
        "params": state.params,
        "generator": state.generator,
        "curve": torch.tensor(state.curve, dtype=torch.float64),
        **{f"rule.{name}": value for name, value in state.rule.items()},
        **{name: value for name, value in optional.items() if value is not None},
    }


def _state(tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> LaneState:
    rule = {name.removeprefix("rule."): value for name, value in tensors.items() if name.startswith("rule.")}
    return LaneState(
        params=tensors["params"],
        rule=rule,
        generator=tensors["generator"],
        curve=tuple(tensors["curve"].tolist()),
        image=tensors.get("image"),
        samples=tensors.get("samples"),
        steepest=numbers["steepest"],
        steepest_ever=numbers["steepest_ever"],
        silent_at=numbers["silent_at"],
        trial=tuple(numbers["trial"]),
    )


def _numbered(number: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
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
