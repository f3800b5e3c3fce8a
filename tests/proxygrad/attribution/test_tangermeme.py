"""Rescale beside tangermeme's deep_lift_shap, where that is installed: ``pip install tangermeme==1.6.0``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from proxygrad.attribution.attribute import attribute

tangermeme: Any = pytest.importorskip("tangermeme.deep_lift_shap", reason="tangermeme is not installed")


class Motifs(nn.Module):
    """Two convolutions, a pool and two dense layers, with a module for each rectifier."""

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv1d(4, 8, 7), activation(), nn.MaxPool1d(3), nn.Conv1d(8, 8, 5), activation()),
            *(nn.AvgPool1d(4), nn.Flatten(), nn.Linear(8 * 2, 16), activation(), nn.Linear(16, 3)),
        )
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            scale = 0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 4, 48)`` → ``(N, 3)``"""
        return self.layers(x)  # type: ignore[no-any-return]


def sequences(*shape: int) -> Tensor:
    drawn = torch.randint(4, shape, generator=torch.Generator().manual_seed(len(shape)))
    return torch.nn.functional.one_hot(drawn, 4).movedim(-1, -2).float()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ELU, nn.Sigmoid, nn.Softplus])
def test_contributions_and_hypothetical_ones_agree(activation: type[nn.Module]) -> None:
    network, inputs, references = Motifs(activation), sequences(3, 48), sequences(3, 5, 48)
    found = attribute(network, inputs, "output:1", reference=references, rule="rescale")
    hypothetical = tangermeme.deep_lift_shap(
        network, inputs, target=1, references=references, hypothetical=True, device="cpu"
    )
    torch.testing.assert_close(found.hypothetical(inputs), hypothetical, rtol=1e-4, atol=1e-6)
    standing = tangermeme.deep_lift_shap(network, inputs, target=1, references=references, device="cpu")
    at_letters = found.contributions.sum(dim=1, keepdim=True) * inputs
    torch.testing.assert_close(at_letters, standing, rtol=1e-4, atol=1e-6)
