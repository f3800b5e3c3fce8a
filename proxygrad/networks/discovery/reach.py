"""Reach: what in a network gates its values past the surrogate, so that the slope does not reach it.

`proxygrad.backward.surrogate` replaces the activations that Python calls. What runs elsewhere keeps its own
gradient: a `torch.autograd.Function`, a function of TorchScript, a mask that is made in other ways than those
of `proxygrad.backward.gates`. Nothing can be done about these but to say so, `Network.unreached`.

A pass inside the surrogate shows them: activations that are left in the graph of its results, functions with
a gradient of their own, products with values that depend on the image and lead no gradient to it, and the
larger of two values of which one does not depend on the image, or is a share of the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from proxygrad.backward.held_values import held, side
from proxygrad.networks.capture import tensors_in
from proxygrad.torch_function import TorchFunctionInterceptor, function_name

#: Nodes of autograd's graph that are activations, without ``Backward0``.
_ACTIVATIONS = {
    *("Relu", "LeakyRelu", "PreluKernel", "RreluWithNoise", "Threshold", "Hardtanh", "Hardswish"),
    *("Elu", "Celu", "Selu", "Silu", "Mish", "Gelu", "Softplus"),
}
#: Those that torch uses in functions of its own too, as in `torch.nn.functional.normalize`.
_BOUNDS = {"Clamp", "ClampMin", "ClampMax", "Maximum", "Minimum"}
_BOUND_CALLS = {
    *("clamp", "clamp_", "clip", "clip_", "clamp_min", "clamp_min_", "clamp_max", "clamp_max_"),
    *("maximum", "minimum", "max", "min", "fmax", "fmin"),
}
#: Those of lists, in place too, of which the graph has no name.
_LIST_BOUNDS = {"_foreach_clamp_min", "_foreach_clamp_max", "_foreach_maximum", "_foreach_minimum"}
_MAXIMA = {"maximum", "minimum", "max", "min", "fmax", "fmin"}
#: Calls that choose among what was joined before.
_CHOOSING = {
    *("amax", "amin", "max", "min", "aminmax", "topk", "sort", "msort", "kthvalue", "median", "nanmedian"),
    *("cummax", "cummin", "logsumexp", "max_pool1d", "max_pool2d", "max_pool3d"),
}
_JOINING = {"stack", "vstack", "hstack", "dstack", "cat", "concat", "concatenate"}
_ARRANGING = {
    *("view", "reshape", "unflatten", "flatten", "permute", "transpose", "movedim", "moveaxis", "contiguous"),
    *("squeeze", "unsqueeze", "mul", "div", "__mul__", "__rmul__", "__truediv__", "__getitem__"),
}
#: Calls that let through some of a tensor by values beside it.
_WEIGHING = {
    *("mul", "mul_", "multiply", "multiply_", "__mul__", "__rmul__", "__imul__", "div", "div_", "where"),
    *("masked_fill", "masked_fill_", "__setitem__", "index_put", "index_put_", "masked_scatter"),
    *("addcmul", "addcmul_", "addcdiv", "addcdiv_", "lerp", "lerp_", "_foreach_mul"),
}
#: Those of which the result is smaller than what is weighed.
_CONTRACTING = {"einsum", "dot", "vdot", "inner", "tensordot", "vecdot"}
_PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "einsum"}
#: Calls that find the places at which something is put.
_FINDING = {"where", "nonzero", "argwhere"}
_PUTTING = {
    *("__setitem__", "index_put", "index_put_", "index_add", "index_add_", "index_copy", "index_copy_"),
    *(
        "scatter",
        "scatter_",
        "scatter_add",
        "scatter_add_",
        "scatter_reduce",
        "scatter_reduce_",
        "put",
        "put_",
    ),
}
#: Calls whose gradient is 0.
_FLAT = {"sign", "sgn", "heaviside", "round", "floor", "ceil", "trunc"}
_SCALING = {
    "mul",
    "mul_",
    "multiply",
    "multiply_",
    "__mul__",
    "__rmul__",
    "div",
    "true_divide",
    "__truediv__",
}
_ADDING = {"add", "add_", "sub", "sub_", "__add__", "__radd__", "__iadd__", "__sub__", "__isub__"}


class Reach(TorchFunctionInterceptor):
    """Context manager: watches a pass of ``image`` inside the surrogate. ``missed``: by module, what is not
    reached; the name of the network itself is empty."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self._image = image
        self.missed: dict[str, str] = {}
        self._running = [""]
        self._shadows: dict[int, Tensor] = {}  # depend on the image, and lead no gradient to it
        self._diagonal = set[int]()  # of the shadows: diagonal matrices
        self._places = set[int]()  # of the shadows: where others are above something
        self._joined: dict[int, tuple[Tensor, bool]] = {}  # with a constant, and whether side by side
        self._scaled: dict[int, tuple[Tensor, Any, object]] = {}  # by a factor, with a token of what it was
        self._folded: dict[int, tuple[Tensor, Tensor]] = {}
        self._seen: set[Any] = set()  # nodes of the graph

    def enter(self, name: str, taken: Tensor | None) -> None:
        """Module ``name`` is called; what led to its input is missed by the one around it."""
        self._look([taken])
        self._running.append(name)

    def leave(self, returned: Tensor | None) -> None:
        """It has returned."""
        self._look([returned])
        self._running.pop()

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the call, and take note of masks and of what is weighed by them."""
        name = function_name(func)
        taken = list(tensors_in((args, kwargs)))
        self._look(taken)
        result = func(*args, **kwargs)
        made = list(tensors_in(args[:1] if name == "__setitem__" else result))
        self._look(made, but=set() if name in _BOUND_CALLS else _BOUNDS)  # F.normalize has bounds of its own
        if name.rstrip("_") in _LIST_BOUNDS and any(each.requires_grad for each in taken):
            self._miss(name)
        if name == "abs" and made:
            self._folded[id(made[0])] = (made[0], taken[0])
        elif name in _ADDING and made and _kind(made[0].grad_fn) != "_Gated":
            self._add(name, *taken[:2])
        self._weigh(name, taken, made)
        self._choose(name, args, taken, made)
        return result

    def _miss(self, what: str) -> None:
        before = self.missed.get(self._running[-1], "")
        if what and what not in before.split(", "):
            self.missed[self._running[-1]] = f"{before}, {what}" if before else what

    def _weigh(self, name: str, taken: list[Tensor], made: list[Tensor]) -> None:
        """Follow shadows through a call, and note where they weigh something else."""
        of_image = [each for each in taken if each.requires_grad or id(each) in self._shadows]
        if not of_image or name.endswith("_like") or name.startswith("new_"):
            return
        of_shadows = all(id(each) in self._shadows for each in of_image)
        for each in made:
            if of_shadows or name in _FLAT or not each.requires_grad:
                self._shadows[id(each)] = each
                if name.startswith("diag"):
                    self._diagonal.add(id(each))
                found = name in _FINDING and len(taken) == 1
                if found or any(id(other) in self._places for other in taken):
                    self._places.add(id(each))
            elif each.numel() > 1 and _kind(each.grad_fn) != "_Gated":
                masks = [other for other in taken if other is not each and id(other) in self._shadows]
                if self._is_weighed(name, each, of_image, masks):
                    self._miss(name.strip("_"))

    def _is_weighed(self, name: str, made: Tensor, of_image: list[Tensor], masks: list[Tensor]) -> bool:
        """Whether a call that made ``made`` let through some of ``of_image`` by ``masks``."""
        if name in _WEIGHING:
            sizes = {made.numel()}
        else:
            led = (each for each in of_image if name in _CONTRACTING and id(each) not in self._shadows)
            sizes = {each.numel() for each in led}
        found = {id(mask) for mask in masks}
        of_diagonal = name in _PRODUCTS and not found.isdisjoint(self._diagonal)
        at_places = name in _PUTTING and not found.isdisjoint(self._places)
        return of_diagonal or at_places or any(mask.numel() in sizes for mask in masks)

    def _choose(self, name: str, args: tuple[Any, ...], taken: list[Tensor], made: list[Tensor]) -> None:
        """Note where the larger is chosen of x and a constant with a history, or of x and a share of x."""
        if not (taken and made and made[0].requires_grad) or _kind(made[0].grad_fn) == "_Gated":
            return
        first = self._joined.get(id(taken[0]))
        if name in _CHOOSING and first is not None and first[1]:
            self._miss(name)
        if name in _MAXIMA and len(taken) == 2:
            shares = any(self._is_share(*pair) for pair in (taken, taken[::-1]))
            if shares or any(self._is_constant(each) for each in taken):
                self._miss(name)
        if name in _JOINING and len(taken) > 1 and len({each.shape for each in taken}) == 1:
            constant = {_is_even(each) and self._is_constant(each) for each in taken}
            if len(constant) == 2:
                self._joined[id(made[0])] = made[0], name == "stack"
        elif name in _ARRANGING and first is not None:
            self._joined[id(made[0])] = made[0], first[1] or name in ("view", "reshape", "unflatten")
        if name in _SCALING and len(args) == 2:
            factor = args[1] if args[0] is taken[0] else args[0]
            self._scaled[id(made[0])] = made[0], factor, held(taken[0])

    def _is_share(self, part: Tensor, whole: Tensor) -> bool:
        """Whether the first is the second times a factor that is not negative."""
        _, factor, scaled = self._scaled.get(id(part), (None, None, None))
        return scaled is not None and scaled == held(whole) and _is_not_negative(factor)

    def _is_constant(self, value: Tensor) -> bool:
        """Whether it does not depend on the image, as ``0 * x``, whatever its history."""
        if id(value) in self._shadows or not value.is_floating_point():
            return False
        if not value.requires_grad:
            return True
        weights = torch.linspace(1, 2, value.numel(), dtype=value.dtype, device=value.device)
        with suppress(Exception):  # as of a network that writes over what its gradient needs
            given: Sequence[Tensor | None] = torch.autograd.grad(
                value, self._image, weights.view(value.shape), retain_graph=True, allow_unused=True
            )
            return given[0] is None or not bool(given[0].any())
        return False

    def _look(self, tensors: Iterable[Tensor | None], but: Collection[str] = ()) -> None:
        """Note what is missed among the nodes behind ``tensors`` that were not seen yet."""
        waiting = [each.grad_fn for each in tensors if each is not None]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in self._seen:
                self._seen.add(node)
                waiting.extend(before for before, _ in node.next_functions)
                if _kind(node) not in but:
                    self._miss(_missed_at(node))

    def _add(self, name: str, *taken: Tensor) -> None:
        """Note where x is added to |x|, or one side of it taken off: both make a rectifier."""
        for y, x in (taken, taken[::-1]) if len(taken) == 2 else ():
            is_folded = self._folded.get(id(y), (None, None))[1] is x
            if is_folded or side(y, x, negated="sub" not in name) is not None:
                self._miss(name.strip("_"))


def unreached_notes(unreached: Mapping[str, str]) -> list[str]:
    """A sentence for each entry of `Network.unreached`."""
    places = {layer: f"layer {layer!r}" if layer else "its forward" for layer in unreached}
    return [f"the slope does not reach {call} in {places[layer]}" for layer, call in unreached.items()]


def _is_even(value: Tensor) -> bool:
    """Whether all of its numbers are one."""
    return value.is_floating_point() and value.numel() > 1 and bool((value == value.flatten()[0]).all())


def _is_not_negative(factor: Any) -> bool:
    if isinstance(factor, Tensor):
        return not factor.requires_grad and bool((factor >= 0).all())
    return isinstance(factor, int | float) and factor >= 0


def _kind(node: Any) -> str:
    return re.sub(r"Backward\d*$", "", type(node).__name__)


def _missed_at(node: Any) -> str:
    """What is missed at a node of the graph; empty where nothing is."""
    own = getattr(type(node), "_forward_cls", None)
    if own is not None:  # a `torch.autograd.Function`
        return "" if own.__module__.startswith("proxygrad.") else str(own.__qualname__)
    kind = _kind(node)
    if kind in _BOUNDS:
        of_image = [after for after, _ in node.next_functions if after is not None]
        return kind.lower() if len(of_image) == 1 else ""  # else it is the larger of two features
    return kind.lower() if kind in _ACTIVATIONS else ""
