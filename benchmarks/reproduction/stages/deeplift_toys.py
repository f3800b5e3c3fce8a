"""DeepLIFT on three functions of one line each: where gradients mislead, and where Rescale does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.reproduction.stage import Claim, Context, Figure, Paper, Report, Verdict
from proxygrad.attribution.attribute import attribute

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

METHODS: dict[str, dict[str, Any]] = {
    "gradient × input": {"method": "gradient_times_input"},
    "integrated gradients": {"method": "integrated_gradients"},
    "Rescale": {"rule": "rescale"},
    "RevealCancel": {"rule": "revealcancel"},
}


class Saturated(nn.Module):
    """``y = 1 − ReLU(1 − i1 − i2)``: the sum of both, which stops at 1 (figure 1 of the paper)."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 2)`` → ``(N, 1)``"""
        return 1 - torch.relu(1 - x.sum(dim=1, keepdim=True))


class Thresholded(nn.Module):
    """``y = ReLU(x − 10)`` (figure 2 of the paper)."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 1)`` → ``(N, 1)``"""
        return torch.relu(x - 10)


class Minimum(nn.Module):
    """``y = min(i1, i2) = i1 − ReLU(i1 − i2)`` (section 3.5.2 of the paper)."""

    def __init__(self) -> None:
        super().__init__()
        self.difference = nn.Linear(2, 1, bias=False)
        self.difference.weight.data = torch.tensor([[1.0, -1.0]])

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 2)`` → ``(N, 1)``"""
        return x[:, :1] - torch.relu(self.difference(x))


class DeepLiftToys:
    """The paper's arguments, as numbers."""

    name = "deeplift_toys"
    title = "DeepLIFT: where gradients mislead"
    paper: Paper = "DeepLIFT"
    needs_shared = False

    def run(self, context: Context) -> Report:
        """Measure all three; a quick run does the same."""
        minimum = {name: _contributions(Minimum(), (3.0, 2.0), how) for name, how in METHODS.items()}
        x = torch.linspace(0, 20, 401)
        curves = {
            name: attribute(Thresholded(), x[:, None], "output:0", **METHODS[name]).contributions[:, 0]
            for name in ("gradient × input", "Rescale")
        }
        return Report(
            (_saturation(), _threshold(curves), _minimum(minimum)),
            figures=(Figure("toys", _CAPTION, lambda canvas: _draw(canvas, x, curves, minimum)),),
            note="Functions of one line, the reference is 0.",
        )


_CAPTION = (
    "Left: the contribution of x to ReLU(x − 10). Right: the contributions of i1 = 3 and i2 = 2 to their "
    "minimum, 2."
)


def _contributions(network: nn.Module, at: tuple[float, ...], how: dict[str, Any]) -> list[float]:
    found = (
        attribute(network, torch.tensor([at]), "output:0", dtype=torch.float64, **how)
        .contributions[0]
        .tolist()
    )
    return [round(each, 6) + 0.0 for each in found]


def _saturation() -> Claim:
    gradient = _contributions(Saturated(), (1.0, 1.0), METHODS["gradient × input"])
    ours = _contributions(Saturated(), (1.0, 1.0), METHODS["Rescale"])
    with torch.no_grad():
        without_one = float(Saturated()(torch.tensor([[1.0, 1.0]])) - Saturated()(torch.tensor([[0.0, 1.0]])))
    return Claim(
        "DeepLIFT",
        "Where a sum is saturated, gradients and perturbing one input see nothing, and DeepLIFT sees both.",
        f"1 − ReLU(1 − i1 − i2) at (1, 1): gradient × input {gradient}, taking i1 away changes "
        f"{without_one:g}, DeepLIFT {ours}",
        _verdict(gradient == [0, 0] and without_one == 0 and ours == [0.5, 0.5]),
    )


def _threshold(curves: dict[str, Tensor]) -> Claim:
    jumps = {name: float(curve.diff().abs().max()) for name, curve in curves.items()}
    return Claim(
        "DeepLIFT",
        "At a threshold gradient × input jumps, and DeepLIFT is continuous.",
        f"ReLU(x − 10) in steps of .05: the largest jump is {jumps['gradient × input']:.2f} of gradient × "
        f"input, {jumps['Rescale']:.2f} of DeepLIFT",
        _verdict(jumps["gradient × input"] > 9.9 and jumps["Rescale"] < 0.06),
    )


def _minimum(found: dict[str, list[float]]) -> Claim:
    others = [each for name, each in found.items() if name != "RevealCancel"]
    return Claim(
        "DeepLIFT",
        "Of min(i1, i2), gradients, integrated gradients and Rescale see one input, RevealCancel both.",
        "at (3, 2): " + ", ".join(f"{name} {each}" for name, each in found.items()),
        _verdict(all(each == [0, 2] for each in others) and found["RevealCancel"] == [1, 1]),
    )


def _draw(canvas: Canvas, x: Tensor, curves: dict[str, Tensor], minimum: dict[str, list[float]]) -> None:
    canvas.set_size_inches(7.5, 2.8)
    left, right = canvas.subplots(1, 2)
    for name, curve in curves.items():
        left.plot(x.numpy(), curve.numpy(), label=name, linestyle="--" if name == "Rescale" else "-")
    left.set(xlabel="x", ylabel="contribution")
    left.legend(fontsize=8)
    for offset, label in ((-0.2, "i1"), (0.2, "i2")):
        heights = [each[offset > 0] for each in minimum.values()]
        right.bar([number + offset for number in range(len(minimum))], heights, width=0.38, label=label)
    right.set_xticks(range(len(minimum)), [name.replace(" ", "\n", 1) for name in minimum], fontsize=8)
    right.legend(fontsize=8)


def _verdict(holds: bool) -> Verdict:
    return "holds" if holds else "does not hold"


STAGE = DeepLiftToys()
