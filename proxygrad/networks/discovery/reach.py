"""Reach: what in a network gates its values past the surrogate, so that the slope does not reach it.

`proxygrad.backward.surrogate` replaces the activations that Python calls. What runs elsewhere keeps its own
gradient: a `torch.autograd.Function`, a function of TorchScript, a mask that is made in other ways than those
of `proxygrad.backward.gates`. Nothing can be done about these but to say so, `Network.unreached`.

A pass inside the surrogate shows them: activations that are left in the graph of its results, functions with
a gradient of their own, and products with values that depend on the image and lead no gradient to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

from torch import Tensor

from proxygrad.backward.held_values import side
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
#: Calls that let through some of a tensor by values beside it.
_WEIGHING = {
    *("mul", "mul_", "multiply", "multiply_", "__mul__", "__rmul__", "__imul__", "div", "div_", "where"),
    *("masked_fill", "masked_fill_", "__setitem__", "index_put", "index_put_", "masked_scatter"),
}
#: Calls whose gradient is 0.
_FLAT = {"sign", "sgn", "heaviside", "round", "floor", "ceil", "trunc"}
_ADDING = {"add", "add_", "sub", "sub_", "__add__", "__radd__", "__iadd__", "__sub__", "__isub__"}


class Reach(TorchFunctionInterceptor):
    """Context manager: watches a pass inside the surrogate. ``missed``: by module, what is not reached; the
    name of the network itself is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.missed: dict[str, str] = {}
        self._running = [""]
        self._shadows: dict[int, Tensor] = {}  # depend on the image, and lead no gradient to it
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
        if name == "abs" and made:
            self._folded[id(made[0])] = (made[0], taken[0])
        elif name in _ADDING and made and _kind(made[0].grad_fn) != "_Gated":
            self._add(name, *taken[:2])
        self._weigh(name, taken, made)
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
            elif name in _WEIGHING and each.numel() > 1 and _kind(each.grad_fn) != "_Gated":
                masks = (other for other in taken if other is not each and id(other) in self._shadows)
                if any(other.numel() == each.numel() for other in masks):
                    self._miss(name.strip("_"))

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
