"""Batching: whether the images of a batch may be run together, found by trying.

Most networks treat each image for itself, and keep the images of a batch in dimension 0. Some do not: they
take one image at a time, let images influence each other (minibatch statistics), treat an image by its place
in the batch, or fold something else into dimension 0, where the surrogate tells lanes apart. A look at the
code does not show it; a few passes do (`PASSES`). What begins with five images or more is not seen here, but
before the first batch of that size (`proxygrad.engine.batch_sizes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from proxygrad.backward.surrogate import rectifier_name
from proxygrad.errors import NetworkError
from proxygrad.networks.capture import first_tensor, tensors_in
from proxygrad.networks.discovery.layers import TensorLayout
from proxygrad.torch_function import TorchFunctionInterceptor

#: The images of each pass. The first two images keep their places from the first pass to the second, and lose
#: their mates, the extremes among them; each place holds an image that another pass has elsewhere.
PASSES = ((0, 1, 2, 3), (0, 1, 1, 0), (2,), (3,))
#: Values that differ by less than this part are the same but for rounding, on devices that add in any order.
SAME = 1e-6
#: Of an image alone or in another place, where kernels may add in another order; above the largest that
#: rounding does on the networks of tests/corpus and tests/proxygrad/scenarios/test_zoo.py.
ALIKE = 1e-3
#: About so many values of each layer and image are looked at, spread evenly over it.
SAMPLES = 4096
#: Values whose length is below this are zero but for rounding: a root mean square of 1e-6, as in
#: `proxygrad.networks.variants.SMALLEST`.
SMALLEST = 1e-6 * SAMPLES**0.5


@dataclass(frozen=True)
class Batching:
    """How the images of a network may be batched.

    ``alone``: why images must be run one by one; empty where they need not. ``folded``: rectifiers see the
    images in another order than one after another, so that they can have but one slope for all.
    """

    alone: str = ""
    folded: bool = False


class _Trace(NamedTuple):
    """One pass: of each layer's value, and each rectifier's input, two numbers for each row."""

    layers: dict[str, Tensor]
    rectified: list[Tensor]


def find_batching(
    run: Callable[[Tensor], Any],
    names: Mapping[str, nn.Module],
    layouts: Mapping[str, TensorLayout],
    images: Tensor,
) -> Batching:
    """Try ``run``, the network, on the four different ``images`` ``(4, C, H, W)``, the third one dark and the
    last one bright.

    ``layouts``: where the batch is in what each listed layer returns. Raises `NetworkError` when the network
    returns something else each time, and what it raises on one image.
    """

    def trace(chosen: tuple[int, ...]) -> _Trace:
        return _traced(run, names, layouts, images[list(chosen)])

    try:
        first, *others = (trace(chosen) for chosen in PASSES)
    except torch.AcceleratorError:
        raise
    except Exception as error:
        run(images[:1])
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        return Batching(alone=f"it fails on {len(images)} images at a time ({reason})")
    if any(each.layers.keys() != first.layers.keys() for each in others):
        return Batching(alone="the images of a batch decide together which layers run")
    for name, value in first.layers.items():
        if reason := _difference(name, value, [each.layers[name] for each in others]):
            again = trace(PASSES[0])
            if any(_changed(value, again.layers[label]) for label, value in first.layers.items()):
                raise NetworkError("the network returns something else for the same image each time")
            return Batching(alone=reason)
    return Batching(folded=not _in_order(first, others))


def _difference(name: str, first: Tensor, others: list[Tensor]) -> str:
    """How the rows of a layer depend on the rest of the batch; empty where they do not."""
    if len(first) != len(PASSES[0]):
        return f"layer {name!r} returns {len(first)} entries for {len(PASSES[0])} images"
    if _changed(first[:2], others[0][:2]):
        return f"at layer {name!r} the images of a batch influence each other"
    for chosen, value in zip(PASSES[1:], others, strict=True):
        if _changed(first[list(chosen)], value, ALIKE):
            where = "alone" if len(chosen) == 1 else "in another place of the batch"
            return f"layer {name!r} returns something else for an image {where}"
    return ""


def _in_order(first: _Trace, others: list[_Trace]) -> bool:
    """Whether each rectifier sees all of the first image, then all of the second, and so on."""
    if any(len(each.rectified) != len(first.rectified) for each in others):
        return False
    for number, value in enumerate(first.rectified):
        if len(value) % len(PASSES[0]):
            return False
        images = value.unflatten(0, (len(PASSES[0]), -1))
        for chosen, each in zip(PASSES[1:], others, strict=True):
            if _changed(images[list(chosen)].flatten(0, 1), each.rectified[number], ALIKE):
                return False
    return True


class _Rectified(TorchFunctionInterceptor):
    """Context manager: ``rows`` are `_rows` of what each rectifier takes."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Tensor] = []

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the call, and look at its input first where it is a rectifier's."""
        if rectifier_name(func, args, kwargs) is not None:
            taken = next(tensors_in((args, kwargs)))
            if taken.requires_grad or not taken.is_floating_point():  # else it is a constant, or else a mask
                self.rows.append(_rows(taken))
        return func(*args, **kwargs)


def _traced(
    run: Callable[[Tensor], Any],
    names: Mapping[str, nn.Module],
    layouts: Mapping[str, TensorLayout],
    images: Tensor,
) -> _Trace:
    found, calls = dict[str, Tensor](), dict[str, int]()
    plain = {module: name for name, module in names.items()}

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        name = plain[module]
        number = calls[name] = calls.get(name, 0) + 1
        take(name if number == 1 and name in layouts else f"{name}@{number}", output)

    def take(label: str, output: Any) -> None:
        value, layout = first_tensor(output), layouts.get(label)
        if value is not None and layout is not None:
            found[label] = _rows(value.movedim(layout.batch, 0))

    rectified = _Rectified()
    with ExitStack() as stack:
        for module in plain:
            stack.callback(module.register_forward_hook(keep).remove)
        stack.enter_context(rectified)
        output = run(images)
    take("output", output)
    return _Trace(found, rectified.rows)


def _rows(value: Tensor) -> Tensor:
    """Two numbers for each entry of dimension 0, ``(rows, 2)``: a weighted sum of samples, their length."""
    with torch.no_grad():
        flat = value.detach().reshape(len(value) if value.ndim else 1, -1)
        samples = flat[:, :: max(1, flat.shape[1] // SAMPLES)].float()
        weights = torch.arange(samples.shape[1], device=flat.device, dtype=torch.float32).cos()
        return torch.stack(
            [samples @ weights / max(1, len(weights)) ** 0.5, samples.norm(dim=1)], dim=1
        ).cpu()


def _changed(before: Tensor, after: Tensor, part: float = SAME) -> bool:
    """Whether rows of `_rows` differ by more than ``part`` of their length; infinite ones never do."""
    if before.shape != after.shape:
        return True
    return bool(((before - after).abs() > part * before[:, 1:].clamp(min=SMALLEST)).any())
