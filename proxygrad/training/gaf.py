"""Gradient activation functions for training: `GAF` puts one into any optimizer of torch.

Liu, Chen, Du, Jin and Shang, "Activated Gradients for Deep Neural Networks", arXiv 2107.04228. The function
enlarges small values and bounds large ones. Where it acts is the authors': in SGD on the step, after weight
decay and momentum, while the stored momentum stays raw; in Adam on the raw gradient, before everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from proxygrad.errors import InvalidRequest
from proxygrad.optim.gradient_activations import GAFS, gaf
from proxygrad.spec.settings import GAF_ALPHA, GAF_BETA, GafName


class GAF(Optimizer):
    """Any optimizer of torch, with a gradient activation function.

    ``optimizer``: made as usual, and stepped through this object from then on; both share parameter groups
    and state. ``name``: ``atan``, ``tanh`` or ``log`` (`proxygrad.optim.gradient_activations.gaf`); ``none``
    changes nothing, to the bit on a CPU. ``alpha``, ``beta``: above 0; (0.1, 20) and (0.2, 10) in the
    authors' runs. A parameter group may have its own ``gaf``, ``gaf_alpha`` and ``gaf_beta``.

    - `torch.optim.SGD`: the function acts on what is added to the weights, after weight decay and momentum;
      ``momentum_buffer`` stays raw. The step is computed here, one tensor at a time: ``foreach`` and
      ``fused`` are ignored.
    - Adam, AdamW and every other optimizer, subclasses of SGD too: it acts on the raw gradient. The
      optimizer steps as it always does (``foreach``, ``fused``), and ``.grad`` is put back after the step:
      the function needs room for the gradients once more. Adam's quotient cancels α, but for its ``eps``.

    It is an `Optimizer`: schedulers, closures, `GradScaler`, `state_dict` and `load_state_dict` work.
    Raises `InvalidRequest` for an unknown name, numbers that are not above 0, an optimizer that evaluates
    its closure several times (LBFGS), ``differentiable=True``, and sparse gradients.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> optimizer = GAF(torch.optim.SGD([weight], lr=1.0), "tanh", alpha=0.1, beta=20.0)
    >>> weight.grad = torch.tensor([0.001, 1000.0])
    >>> optimizer.step()
    >>> weight.detach()
    tensor([0.9980, 0.9000])
    """

    def __init__(
        self, optimizer: Optimizer, name: GafName = "atan", alpha: float = GAF_ALPHA, beta: float = GAF_BETA
    ) -> None:
        if isinstance(optimizer, torch.optim.LBFGS):
            raise InvalidRequest("GAF cannot wrap LBFGS, which evaluates its closure several times a step")
        self.optimizer = optimizer
        own = {"gaf": name, "gaf_alpha": alpha, "gaf_beta": beta}
        # The groups are taken as they are, the same dicts, so what is set in one optimizer holds in both.
        super().__init__(optimizer.param_groups, {**optimizer.defaults, **own})
        self._own = own
        self._share()

    def _share(self) -> None:
        self.param_groups, self.state = self.optimizer.param_groups, self.optimizer.state
        for group in self.param_groups:
            for key, value in self._own.items():
                group.setdefault(key, value)
            _check(group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; the loss that ``closure`` returned, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for _, weight in self._with_gradient():
            if weight.grad is not None and weight.grad.is_sparse:
                raise InvalidRequest("GAF has no rule for sparse gradients; valid: Embedding(sparse=False)")
        if type(self.optimizer) is SGD:
            for group, weight in self._with_gradient():
                self._descend(group, weight)
        else:
            with self._bent():
                self.optimizer.step()
        return loss

    def _with_gradient(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    yield group, weight

    def _descend(self, group: dict[str, Any], weight: Tensor) -> None:
        """The step of `torch.optim.SGD`, its operations in their order; the function before the last."""
        assert weight.grad is not None
        step = -weight.grad if group["maximize"] else weight.grad
        if group["weight_decay"] != 0:
            step = step.add(weight, alpha=group["weight_decay"])
        if group["momentum"] != 0:
            state = self.state[weight]
            buffer = state.get("momentum_buffer")
            if buffer is None:
                buffer = state["momentum_buffer"] = step.detach().clone()
            else:
                buffer.mul_(group["momentum"]).add_(step, alpha=1 - group["dampening"])
            step = step.add(buffer, alpha=group["momentum"]) if group["nesterov"] else buffer
        weight.add_(_activation(group)(step), alpha=-float(group["lr"]))

    @contextmanager
    def _bent(self) -> Iterator[None]:
        """Gradients under the function, and afterwards as they were."""
        raw = [(weight, weight.grad) for _, weight in self._with_gradient()]
        try:
            for group, weight in list(self._with_gradient()):
                assert weight.grad is not None
                weight.grad = _activation(group)(weight.grad)
            yield
        finally:
            for weight, gradient in raw:
                weight.grad = gradient

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As `Optimizer.add_param_group`."""
        if hasattr(self, "_own"):
            self.optimizer.add_param_group(param_group)
            self._share()
        else:  # of `Optimizer.__init__`, which takes each group of the optimizer
            super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """That of the optimizer; its groups also hold ``gaf``, ``gaf_alpha`` and ``gaf_beta``."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What `state_dict` returned, or the optimizer's own from a run without `GAF`."""
        self.optimizer.load_state_dict(state_dict)
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer, "defaults": self.defaults, "_own": self._own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()


def _activation(group: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    return gaf(group["gaf"], group["gaf_alpha"], group["gaf_beta"])


def _check(group: dict[str, Any]) -> None:
    if group["gaf"] not in GAFS:
        raise InvalidRequest(f"gaf {group['gaf']!r}; there are {', '.join(map(repr, GAFS))}")
    for key in ("gaf_alpha", "gaf_beta"):
        if not 0 < group[key] < float("inf"):
            raise InvalidRequest(f"{key} {group[key]} is not a number above 0")
    if group.get("differentiable"):
        raise InvalidRequest("GAF cannot be differentiated through; valid: differentiable=False")
