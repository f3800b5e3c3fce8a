"""Weights files: reads them and loads them into modules; errors name the file and the first mismatch.

Two kinds of file, neither of which can run code: safetensors, and a state dict saved by `torch.save` and
read with ``weights_only=True``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - torch.load raises it where it refuses to run code
from typing import Any

import torch
from torch import Tensor, nn

from proxygrad.errors import WeightsError, near

#: Where training code keeps the weights in a checkpoint: Lightning and many others, the PyTorch tutorials,
#: DeiT's and others'.
CONTAINERS = ("state_dict", "model_state_dict", "model")
#: What wrappers put before every key: DataParallel and DDP, torch.compile, Lightning's usual attribute.
PREFIXES = ("module.", "_orig_mod.", "model.")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors in a file, by key. Raises `WeightsError` when it is missing, damaged, or no weights."""
    return read_checkpoint(path)[0]


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The same with notes: where in a training checkpoint the tensors are."""
    if not path.is_file():
        raise WeightsError(
            f"weights file {path} does not exist" if not path.exists() else f"{path} is not a file"
        )
    try:
        loaded = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(
            f"weights file {path} cannot be read; is it truncated? {_first_line(error)}"
        ) from error
    notes: list[str] = []
    while len(notes) < len(CONTAINERS) and (key := _container(loaded)) is not None:
        loaded = loaded[key]
        notes.append(f"weights file {path.name} is a training checkpoint: the weights are its {key!r}")
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(
            f"weights file {path} holds a {type(loaded).__name__}, not a state dict of tensors"
        )
    return dict(loaded), tuple(notes)


def load_into(module: nn.Module, state: Mapping[str, Tensor], source: str) -> tuple[str, ...]:
    """Fill ``module`` with ``state``; every key must match, but for a prefix that wrappers put before all of
    them (`PREFIXES`). Returns notes: which prefix was left out.

    Raises `WeightsError` naming ``source`` and the first key that is missing, surplus, or of another shape.
    """
    own = module.state_dict()
    state, removed = _without_prefix(state, own)
    for key, tensor in own.items():
        if key not in state and key.endswith("num_batches_tracked"):
            continue  # a training counter that old files lack; load_state_dict accepts that too
        if key not in state:
            similar = near(key, list(state), 3)
            hint = f"; the file has {', '.join(similar)}" if similar else ""
            raise WeightsError(f"{source} is of another architecture: it lacks {key!r}{hint}")
        if state[key].shape != tensor.shape:
            raise WeightsError(
                f"{source} is of another architecture: {key!r} has shape {tuple(state[key].shape)}, "
                f"the model needs {tuple(tensor.shape)}"
            )
    surplus = next((key for key in state if key not in own), None)
    if surplus is not None:
        raise WeightsError(f"{source} is of another architecture: the model has no {surplus!r}")
    module.load_state_dict(dict(state))
    return (f"{source}: the prefix {removed!r} of its keys is left out",) if removed else ()


def _container(loaded: Any) -> str | None:
    """Under which key a training checkpoint holds the state dict, beside the optimizer's and others."""
    if not isinstance(loaded, Mapping):
        return None
    return next((key for key in CONTAINERS if isinstance(loaded.get(key), Mapping)), None)


def _without_prefix(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[Mapping[str, Tensor], str]:
    """``state`` without the prefixes that all of its keys have and the module's have not, and those."""
    removed = ""
    while state and not any(key in own for key in state):
        prefix = next((each for each in PREFIXES if all(key.startswith(each) for key in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        removed += prefix
    return state, removed


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _read_pickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named is None:
            raise WeightsError(
                f"weights file {path} is neither safetensors nor a saved state dict"
            ) from error
        raise WeightsError(
            f"weights file {path} is not a plain state dict: it names the function {named[1]}, and "
            "loading it could run code, so it is refused; save module.state_dict(), better as safetensors"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__
