"""Which principle should give an activation other than ReLU its proxy derivative?

Trains the bundled network's architecture once for each activation, with that activation in the place of every
ReLU (a short, plain training on the same digits), and maximizes the first units of it with each candidate:

- ``floor``: d = max(f', s), what `proxygrad.backward.surrogate` does;
- ``mixture``: d = (1 - s) f' + s, the gradient of (1 - s) f + s id;
- ``raised``: the mixture whose smallest derivative is s, (1 - t) f' + t with t = (s + m) / (1 + m), where -m
  is the smallest f' (0 where f never falls);
- ``signed``: d = f' with a magnitude of at least s, falling parts kept falling;
- ``half``: ``floor`` for the first half of the steps, slope 0 for the second.

Objectives are the channels and central neurons of ``layer2`` and ``layer3`` and the logits; the value is
always the true network's. A unit is *stuck* when it ends below a tenth of the best that any row of its
activation reached for it; *ratio* is the median of achieved activations, candidate to plain, over the units
that plain did not leave stuck; *worse* counts those of them that lost more than 5 %.

    python benchmarks/activations.py
    python benchmarks/activations.py --activations SiLU GELU --slopes 0.05 --units 32
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad.backward.activations import Activation, recognize
from proxygrad.backward.surrogate import surrogate
from proxygrad.images import start_image
from proxygrad.models.digits import CLASSES, INPUT_SHAPE, DigitsNet, digits, normalize
from proxygrad.optim.update_rules import normalized_ascent, rate
from proxygrad.spec import ObjectiveKind, Spec
from proxygrad.torch_function import TorchFunctionInterceptor
from proxygrad.training.digits import Recipe, Split, accuracy, augment, load_split

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "ReLU6": nn.ReLU6,
    "Hardtanh": nn.Hardtanh,
    "Hardswish": nn.Hardswish,
    "ELU": nn.ELU,
    "SELU": nn.SELU,
    "SiLU": nn.SiLU,
    "Mish": nn.Mish,
    "GELU": nn.GELU,
    "Softplus": nn.Softplus,
}
OBJECTIVES: tuple[tuple[str, ObjectiveKind], ...] = (
    ("layer2", "channel"),
    ("layer2", "neuron"),
    ("layer3", "channel"),
    ("layer3", "neuron"),
    ("fc", "logit"),
)


class Slopes(NamedTuple):
    """What a candidate may use: the incoming gradient, autograd's answer to it, and ``f'``."""

    grad: Tensor
    plain: Tensor
    derivative: Tensor


def mixture(given: Slopes, slope: float, fall: float) -> Tensor:
    return (1 - slope) * given.plain + slope * given.grad


def raised(given: Slopes, slope: float, fall: float) -> Tensor:
    return mixture(given, (slope + fall) / (1 + fall), 0.0)


def signed(given: Slopes, slope: float, fall: float) -> Tensor:
    least = torch.where(given.derivative < 0, -slope, slope) * given.grad
    return torch.where(given.derivative.abs() < slope, least, given.plain)


Rival = Callable[[Slopes, float, float], Tensor]
RIVALS: dict[str, Rival] = {"mixture": mixture, "raised": raised, "signed": signed}


class _Rule(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, activation: Activation, rival: Rival, slope: float, fall: float
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.rule = activation, rival, slope, fall
        return activation(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        activation, rival, slope, fall = ctx.rule
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            y = activation(x)
            (plain,) = torch.autograd.grad(y, x, grads[0], retain_graph=True)
            (derivative,) = torch.autograd.grad(y, x, torch.ones_like(y))
        return rival(Slopes(grads[0], plain, derivative), slope, fall), None, None, None, None


class Candidate(TorchFunctionInterceptor):
    """Activations answer to the backward pass with a rival rule."""

    def __init__(self, rival: Rival, slope: float, fall: float) -> None:
        super().__init__()
        self._rule = rival, slope, fall

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The rival's gradient in place of an activation's."""
        call = recognize(func, args, kwargs)
        if call is None:
            return func(*args, **kwargs)
        return _Rule.apply(*call, *self._rule)  # type: ignore[no-untyped-call]


def steepest_fall(activation: Callable[[], nn.Module]) -> float:
    """``m``: how far below 0 the derivative goes."""
    x = torch.linspace(-8, 8, 100_001, dtype=torch.float64).requires_grad_()
    (derivative,) = torch.autograd.grad(activation()(x).sum(), x)
    return max(0.0, -float(derivative.min()))


def variant(activation: Callable[[], nn.Module], split: Split, epochs: int, seed: int) -> DigitsNet:
    """The bundled architecture with another activation, trained plainly."""
    torch.manual_seed(seed)
    generator, recipe, network = torch.Generator().manual_seed(seed), Recipe(), digits()
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, activation())
    batches = len(split.labels) // recipe.batch
    optimizer = torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=epochs * batches, pct_start=0.2
    )
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(split.labels), generator=generator)[: batches * recipe.batch]
        for chosen in order.view(batches, recipe.batch).unbind():
            images = normalize(augment(split.images[chosen], recipe, generator))
            optimizer.zero_grad()
            torch.autograd.backward(functional.cross_entropy(network(images), split.labels[chosen]))
            optimizer.step()
            schedule.step()
    return network.eval().requires_grad_(False)


def values(network: DigitsNet, images: Tensor, layer: str, objective: str) -> Tensor:
    """Of image ``i`` the activation of unit ``i``, ``(units,)``."""
    x = network.relu(network.bn1(network.conv1(network.smooth(normalize(images)))))
    x = network.layer2(network.layer1(x))
    x = x if layer == "layer2" else network.layer3(x)
    if objective == "logit":
        return network.classify(x).diagonal()
    own: Tensor = x.diagonal()  # (H, W, units)
    return own.mean(dim=(0, 1)) if objective == "channel" else own[own.shape[0] // 2, own.shape[1] // 2]


Proxy = Callable[[int], AbstractContextManager[Any]]  # of a step, from 0


def climb(network: DigitsNet, asked: tuple[str, str], units: int, steps: int, proxy: Proxy) -> Tensor:
    """The best true activation that normalized ascent meets, ``(units,)``: the first units of the layer."""
    images = start_image(INPUT_SHAPE, 0).expand(units, *INPUT_SHAPE).clone()
    best = torch.full((units,), -torch.inf)
    step_size = Spec.model_fields["step_size"].default
    for step in range(steps + 1):
        images.requires_grad_()
        with proxy(step):
            value = values(network, images, *asked)
        (gradient,) = torch.autograd.grad(value.sum(), images)
        best = torch.maximum(best, value.detach())
        length = rate(step_size, min(step, steps), steps)
        images = normalized_ascent(images.detach(), gradient, torch.full((units,), length))
    return best


def floor(slope: float, until: int, step: int) -> surrogate:
    """The shipped rule, before step ``until``; plain from then on."""
    return surrogate(slope if step < until else 0.0)


def candidate(rival: Rival, slope: float, fall: float, step: int) -> Candidate:
    return Candidate(rival, slope, fall)


def measure(
    network: DigitsNet, slopes: list[float], fall: float, units: int, steps: int
) -> dict[tuple[str, float], Tensor]:
    """What every rule reaches with every slope, all objectives one after another."""
    proxies: dict[tuple[str, float], Proxy] = {("plain", 0.0): lambda step: nullcontext()}
    proxies |= {("floor", each): partial(floor, each, steps + 1) for each in slopes}
    proxies |= {("half", each): partial(floor, each, steps // 2) for each in slopes}
    for rule, rival in RIVALS.items():
        proxies |= {(rule, each): partial(candidate, rival, each, fall) for each in slopes}

    def all_objectives(proxy: Proxy) -> Tensor:
        counts = {"fc": len(CLASSES)}
        climbs = [climb(network, asked, counts.get(asked[0], units), steps, proxy) for asked in OBJECTIVES]
        return torch.cat(climbs)

    return {key: all_objectives(proxy) for key, proxy in proxies.items()}


def row(found: Tensor, plain: Tensor, best: Tensor) -> str:
    """Units, stuck, ratio and worse, as columns; units that nothing can raise above 0 are left out."""
    can = best > 0
    moved = can & (plain >= best / 10)
    ratios = found[moved] / plain[moved]
    stuck = int((found < best / 10)[can].sum())
    return f"{int(can.sum()):>6} {stuck:>6} {float(ratios.median()):>6.2f} {int((ratios < 0.95).sum()):>6}"


def main() -> None:
    """Train, climb and print a table for each activation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--activations", nargs="+", default=list(ACTIVATIONS), choices=ACTIVATIONS)
    parser.add_argument("--slopes", nargs="+", type=float, default=[0.02, 0.05, 0.1])
    parser.add_argument("--units", type=int, default=16, help="the first N units of each layer")
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1, help="figures differ a little with the number")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    split = load_split()
    print(f"{'activation':<11} {'rule':<8} {'slope':>5} {'units':>6} {'stuck':>6} {'ratio':>6} {'worse':>6}")
    total: dict[tuple[str, float], list[Tensor]] = {}
    for name in arguments.activations:
        network = variant(ACTIVATIONS[name], split, arguments.epochs, seed=0)
        fall = steepest_fall(ACTIVATIONS[name])
        reached = measure(network, arguments.slopes, fall, arguments.units, arguments.steps)
        plain, best = reached["plain", 0.0], torch.stack(list(reached.values())).amax(dim=0)
        for (rule, slope), found in reached.items():
            print(f"{name:<11} {rule:<8} {slope:>5g} {row(found, plain, best)}", flush=True)
            total.setdefault((rule, slope), []).append(torch.stack([found, plain, best]))
        share = accuracy(network, split.held_out_images, split.held_out_labels)
        print(f"({name} knows {share:.1%} of the held-out digits)")
    for (rule, slope), each in total.items():
        print(f"{'all':<11} {rule:<8} {slope:>5g} {row(*torch.cat(each, dim=1).unbind())}")


if __name__ == "__main__":
    main()
