"""Weights as training code leaves them: inside checkpoints, behind the prefixes of wrappers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from proxygrad.errors import WeightsError
from proxygrad.models.weights import load_into, read_checkpoint
from tests.support.networks import Small

State = dict[str, Tensor]


def prefixed(prefix: str) -> Callable[[State], dict[str, Any]]:
    return lambda state: {f"{prefix}{key}": value for key, value in state.items()}


def loaded(file: Path) -> tuple[Small, str]:
    """A module with the weights of the file, and the notes on it."""
    module = Small()
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    state, notes = read_checkpoint(file)
    return module, "; ".join([*notes, *load_into(module, state, f"weights file {file}")])


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda state: state, ""),
        (lambda state: {"state_dict": state, "epoch": 3}, "its 'state_dict'"),
        (
            lambda state: {"model_state_dict": state, "optimizer_state_dict": {}, "loss": 0.5},
            "its 'model_state_dict'",
        ),
        (lambda state: {"model": state, "args": None}, "its 'model'"),
        (prefixed("module."), "prefix 'module.' of its keys is left out"),
        (prefixed("_orig_mod."), "prefix '_orig_mod.' of its keys is left out"),
        (prefixed("module._orig_mod."), "prefix 'module._orig_mod.' of its keys is left out"),
        (
            lambda state: {"state_dict": prefixed("model.")(state), "hyper_parameters": {}},
            "prefix 'model.' of its keys is left out",
        ),
    ],
    ids=["plain", "state_dict", "tutorial", "model", "data parallel", "compiled", "both", "lightning"],
)
def test_weights_are_recognized_and_a_note_says_so(
    wrap: Callable[[State], dict[str, Any]], said: str, tmp_path: Path
) -> None:
    source, file = Small(), tmp_path / "weights.pt"
    torch.nn.init.normal_(source.conv.weight)
    torch.save(wrap(source.state_dict()), file)
    module, notes = loaded(file)
    for key, value in source.state_dict().items():
        assert torch.equal(module.state_dict()[key], value), key
    assert said in notes
    assert bool(notes) == bool(said)


def test_a_checkpoint_that_holds_itself_is_refused(tmp_path: Path) -> None:
    checkpoint: dict[str, Any] = {}
    checkpoint["model"] = checkpoint
    torch.save(checkpoint, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match="not a state dict of tensors"):
        loaded(tmp_path / "weights.pt")


def test_a_prefix_of_some_keys_alone_is_no_prefix(tmp_path: Path) -> None:
    state = prefixed("model.")(Small().state_dict())
    torch.save({**state, "criterion.weight": torch.ones(1)}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"lacks 'conv.weight'; the file has model.conv"):
        loaded(tmp_path / "weights.pt")


def test_a_module_whose_own_keys_have_the_prefix_keeps_it() -> None:
    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = Small()

    module = Wrapped()
    load_into(module, module.state_dict(), "weights")
