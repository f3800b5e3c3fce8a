"""What does a library return for a layer whose output an in-place rectifier overwrites?

In ``conv → ReLU(inplace=True)`` the rectifier writes its result over what the convolution returned, so a hook
that keeps the tensor ends up with the values after it. The values before it are computed by hand here, and
compared with what `proxygrad`, captum (``LayerActivation``, ``NeuronGradient``) and lucent (its hooks,
``hook_model``) say, where those are installed. The gradient is that of a unit's mean by the image: by hand,
no rectifier is in it.

    python benchmarks/inplace.py
    pip install captum torch-lucent==0.1.8 kornia==0.4.1    # for the rows of the others
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn

from proxygrad import Network
from proxygrad.models.torchvision_compat import import_torchvision

Answer = tuple[Tensor, Tensor]  # of the layer "conv": its activation, and the gradient of one unit of it
UNIT = 0


class Overwritten(nn.Module):
    """A convolution, an in-place rectifier, and a second convolution, so that the layer is not the last."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Conv2d(4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.relu(self.conv(x))).mean(dim=(2, 3))
        return logits


Ask = Callable[[Overwritten, Tensor], Answer]


def unit(activation: Tensor) -> Tensor:
    """The mean of unit `UNIT`, ``(B, C, H, W)`` → ``(B,)``."""
    return activation[:, UNIT].mean(dim=(1, 2))


def gradient(activation: Tensor, images: Tensor) -> Tensor:
    """Of the unit, by the images."""
    (found,) = torch.autograd.grad(unit(activation).sum(), images)
    return found


def by_hand(module: Overwritten, images: Tensor) -> Answer:
    activation = module.conv(images)
    return activation.detach(), gradient(activation, images)


def ours(module: Overwritten, images: Tensor) -> Answer:
    activation = Network(module, (3, 16, 16)).activations(images, "conv")
    return activation.detach(), gradient(activation, images)


def captums(module: Overwritten, images: Tensor) -> Answer:
    captum = import_module("captum.attr")
    activation: Tensor = captum.LayerActivation(module, module.conv).attribute(images)
    return activation.detach(), captum.NeuronGradient(module, module.conv).attribute(images, unit)


def lucents(module: Overwritten, images: Tensor) -> Answer:
    import_torchvision()  # which lucent imports
    seen = import_module("lucent.optvis.render").hook_model(module, lambda: images)
    module(images)
    activation: Tensor = seen("conv")
    return activation.detach(), gradient(activation, images)


OTHERS: dict[str, Ask] = {"captum": captums, "torch-lucent": lucents}


def named(value: Tensor, before: Tensor, after: Tensor) -> str:
    """Which of the two it is."""
    names = {"before": before, "after": after}
    return next((name for name, each in names.items() if torch.allclose(value, each, atol=1e-8)), "neither")


def main() -> None:
    """Ask everybody who is installed."""
    asked: dict[str, Ask] = {"by hand": by_hand, f"proxygrad {version('proxygrad')}": ours}
    for name, answer in OTHERS.items():
        try:
            asked[f"{name} {version(name)}"] = answer
        except PackageNotFoundError:
            print(f"{name} is not installed")
    images = torch.rand((1, 3, 16, 16), generator=torch.Generator().manual_seed(0)).requires_grad_()
    before = by_hand(Overwritten().eval(), images)
    rectified = torch.relu(Overwritten().conv(images))
    after = rectified.detach(), gradient(rectified, images)
    print(f"{'':<22} {'values':<8} {'smallest':>8}  gradient")
    for name, answer in asked.items():
        values, slope = answer(Overwritten().eval(), images)
        told = f"{named(values, before[0], after[0]):<8} {float(values.min()):>8.3f}"
        print(f"{name:<22} {told}  {named(slope, before[1], after[1])}")


if __name__ == "__main__":
    main()
