"""DeepLIFT's Rescale in ProxyGrad, captum and tangermeme: what each misses of summation to delta, and when.

Small networks with seeded random weights, in float64, each with one thing that implementations stumble
over. A cell is the largest share of the difference that contributions miss, and how far they are from
ours, relative to the largest contribution; or the error. Where the share is large, the contributions are
wrong, whatever they look like. tangermeme is not among this project's packages:

    pip install tangermeme==1.6.0       # in an environment of its own, beside this project
    python -m benchmarks.attribution_libraries
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from captum.attr import DeepLift
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.attribution.attribute import attribute

LENGTH = 24
REFERENCES = 3


class Case(nn.Module):
    """Two convolutions and two dense layers, ``(N, 4, 24)`` → ``(N, 3)``; ``middle`` stands between them."""

    def __init__(self, first: Callable[[Tensor], Tensor], middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv_1, self.conv_2 = nn.Conv1d(4, 8, 5, padding=2), nn.Conv1d(8, 8, 5, padding=2)
        self.first, self.middle = first, middle
        self.dense_1, self.dense_2 = nn.LazyLinear(16), nn.Linear(16, 3)
        self.last = nn.ReLU()
        self(torch.zeros(1, 4, LENGTH))
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            scale = 0.3 if parameter.ndim == 1 else 1.5 * parameter[0].numel() ** -0.5
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 4, 24)`` → ``(N, 3)``"""
        x = self.middle(self.conv_2(self.first(self.conv_1(x))))
        return self.dense_2(self.last(self.dense_1(x.flatten(1))))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """A branch with a rectifier of its own, added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv1d(8, 8, 3, padding=1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 8, L)`` → the same"""
        return x + self.relu(self.conv(x))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Positions that look at each other: two matrix products and a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 8, L)`` → the same"""
        return x @ self.softmax(x.mT @ x / 8**0.5).mT  # type: ignore[no-any-return]


def cases() -> dict[str, nn.Module]:
    """By name, each with modules of its own."""
    reused = nn.ReLU()
    return {
        "ReLU, each a module": Case(nn.ReLU(), nn.ReLU()),
        "ReLU, modules in place": Case(nn.ReLU(inplace=True), nn.ReLU(inplace=True)),
        "ReLU, one module called twice": Case(reused, reused),
        "ReLU, a function": Case(functional.relu, functional.relu),
        "ReLU, `clamp(min=0)`": Case(lambda x: x.clamp(min=0), lambda x: x.clamp(min=0)),
        "Sigmoid, Tanh": Case(nn.Sigmoid(), nn.Tanh()),
        "GELU, SiLU": Case(nn.GELU(), nn.SiLU()),
        "Hardswish, ReLU6": Case(nn.Hardswish(), nn.ReLU6()),
        "max pooling": Case(nn.ReLU(), nn.MaxPool1d(2)),
        "max pooling, overlapping and padded": Case(nn.ReLU(), nn.MaxPool1d(3, 2, 1)),
        "residual branch": Case(nn.ReLU(), Residual()),
        "group norm": Case(nn.ReLU(), nn.GroupNorm(2, 8)),
        "layer norm": Case(nn.ReLU(), nn.LayerNorm(LENGTH)),
        "attention": Case(nn.ReLU(), Attention()),
        "a product of two branches": Case(nn.ReLU(), lambda x: x * x.tanh()),
    }


def sequences(*shape: int) -> Tensor:
    """One-hot, ``(*shape, 4, 24)``."""
    drawn = torch.randint(4, (*shape, LENGTH), generator=torch.Generator().manual_seed(len(shape)))
    return functional.one_hot(drawn, 4).mT.double()


def ours(network: nn.Module, x: Tensor, references: Tensor) -> Tensor:
    """Contributions for each reference, ``(N, k, 4, 24)``."""
    found = attribute(network, x, "output:1", rule="rescale", reference=references, dtype=torch.float64)
    return found.each_multipliers * (x.unsqueeze(1) - references)


def captums(network: nn.Module, x: Tensor, references: Tensor) -> Tensor:
    """The same by captum's DeepLift, one reference at a time."""
    each = [
        DeepLift(network).attribute(x.clone().requires_grad_(), reference.contiguous(), target=1)
        for reference in references.unbind(1)
    ]
    return torch.stack(each, dim=1).detach()


def tangermemes(network: nn.Module, x: Tensor, references: Tensor) -> Tensor:
    """The same by tangermeme's deep_lift_shap."""
    from tangermeme.deep_lift_shap import deep_lift_shap  # type: ignore[import-not-found,unused-ignore]

    multipliers: Any = deep_lift_shap(
        network, x, target=1, references=references, raw_outputs=True, device="cpu"
    )
    return multipliers.view_as(references) * (x.unsqueeze(1) - references)  # type: ignore[no-any-return]


def cell(method: Callable[..., Tensor], network: nn.Module, own: Tensor) -> str:
    """What a library's contributions miss, and how far they are from ``own``."""
    x, references = sequences(4), sequences(4, REFERENCES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = method(network, x, references)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:60]}…"
    with torch.no_grad():
        before = torch.stack([network(each)[:, 1] for each in references.unbind(1)], dim=1)
        difference = network(x)[:, 1:2] - before
    missed = float((found.sum(dim=(2, 3)) - difference).abs().max() / difference.abs().max())
    apart = float((found - own).abs().max() / own.abs().max())
    return f"{missed:.0e}" if found is own or not apart else f"{missed:.0e}, {apart:.0e} apart"


def main() -> None:
    """Print a row for each case."""
    torch.set_num_threads(1)
    libraries: dict[str, Callable[..., Tensor]] = {"captum": captums}
    if find_spec("tangermeme"):
        libraries["tangermeme"] = tangermemes
    print(" | ".join(["network", "ours", *libraries]))
    for name, network in cases().items():
        own = ours(network, sequences(4), sequences(4, REFERENCES))
        row = [cell(lambda *_, own=own: own, network, own)]
        row += [cell(method, network, own) for method in libraries.values()]
        print(" | ".join([name, *row]), flush=True)


if __name__ == "__main__":
    main()
