"""SUGAR: the derivative of a smooth function in place of ReLU's, while the value stays ReLU's.

Horuz et al., "The Resurrection of the ReLU", arXiv 2505.22074: forward exactly ``max(x, 0)``, backward
``dx = f'(x) dy`` with the derivative of a surrogate ``f``. Unlike `proxygrad.backward.surrogate`, whose
slope leaves active units alone, this changes the gradient of active units too (but for ``nelu``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from proxygrad.backward.aten import as_called
from proxygrad.errors import NetworkError
from proxygrad.torch_function import BackwardInterceptor, without_interception

DerivativeName = Literal["bsilu", "nelu", "silu", "gelu", "elu"]

#: α of B-SiLU: the paper's, after its equation 7.
BSILU_ALPHA = 1.67
#: α of NeLU: that of public implementations (x-transformers); the paper's own value could not be verified.
NELU_ALPHA = 0.05


def _bsilu(x: Tensor, alpha: float) -> Tensor:
    gate = torch.sigmoid(x)
    return gate + (x + alpha) * gate * (1 - gate)


def _nelu(x: Tensor, alpha: float) -> Tensor:
    falling = 2 * alpha * x / (1 + x.square()).square()
    return torch.where(x > 0, 1.0, falling)


def _gelu(x: Tensor, alpha: float) -> Tensor:
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    normal: Tensor = torch.special.ndtr(x)
    return normal + x * density


def _elu(x: Tensor, alpha: float) -> Tensor:
    return torch.exp(x.clamp(max=0))


_DERIVATIVES: dict[DerivativeName, Callable[[Tensor, float], Tensor]] = {
    "bsilu": _bsilu,
    "nelu": _nelu,
    "silu": lambda x, alpha: _bsilu(x, 0.0),
    "gelu": _gelu,
    "elu": _elu,
}
_ALPHAS: dict[DerivativeName, float] = {"bsilu": BSILU_ALPHA, "nelu": NELU_ALPHA}


def derivative(name: DerivativeName, alpha: float | None = None) -> Callable[[Tensor], Tensor]:
    """``f'`` of a surrogate ``f``, element-wise. ``alpha``: of ``bsilu`` (default 1.67), ``nelu`` (0.05).

    ====== ============================ =========================================
    name   f(x)                         f'(x)
    ====== ============================ =========================================
    bsilu  (x + α) σ(x) - α / 2         σ(x) + (x + α) σ(x) (1 - σ(x))
    nelu   x, or -α / (1 + x²) from 0   1, or 2 α x / (1 + x²)² from 0 downwards
    silu   x σ(x)                       σ(x) + x σ(x) (1 - σ(x))
    gelu   x Φ(x)                       Φ(x) + x φ(x)
    elu    x, or eˣ - 1 from 0          1, or eˣ from 0 downwards
    ====== ============================ =========================================

    Raises `NetworkError` for an unknown name, and for an ``alpha`` that is not finite or has no meaning.
    """
    if name not in _DERIVATIVES:
        raise NetworkError(f"derivative {name!r} is none of {', '.join(get_args(DerivativeName))}")
    if alpha is not None and (name not in _ALPHAS or not math.isfinite(alpha)):
        raise NetworkError(
            f"alpha {alpha} of derivative {name!r}; valid: a finite number, of {' or '.join(_ALPHAS)}"
        )
    chosen = _ALPHAS.get(name, 0.0) if alpha is None else alpha
    function = _DERIVATIVES[name]
    return lambda x: function(x, chosen)


class _SugarReLU(torch.autograd.Function):
    """Keeps its input, of which the derivative is taken. Gradients can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, of: Callable[[Tensor], Tensor], inplace: bool) -> Tensor:
        # Two tensors where ReLU keeps one: a checkpoint that is computed again without the block says so.
        ctx.save_for_backward(x.clone() if inplace else x, x.new_empty(0))
        ctx.of = of
        if not inplace:
            return torch.relu(x)
        ctx.mark_dirty(x)
        return torch.relu_(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        x, _ = ctx.saved_tensors
        return grads[0] * ctx.of(x), None, None


def _inplace(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    flag = kwargs.get("inplace", len(args) > 1 and args[1])
    return func in (torch.relu_, Tensor.relu_) or bool(flag)


_RELUS = (functional.relu, torch.relu, Tensor.relu, torch.relu_, Tensor.relu_)


class sugar(BackwardInterceptor):
    """Context manager: every ReLU of this thread passes back the derivative of a smooth function.

    ``name``, ``alpha``: see `derivative`. Values are ReLU's, to the bit. Calls of ReLU are covered as module,
    function, method and operator of aten, in place or not; other activations stay as they are. A ReLU keeps
    its input for the backward pass, in place too. Of nested blocks, and blocks of
    `proxygrad.backward.surrogate.surrogate`, the innermost applies to ReLU.

    >>> x = torch.tensor([-1.0, 2.0], requires_grad=True)
    >>> with sugar("bsilu"):
    ...     y = torch.relu(x)
    >>> y.detach(), torch.autograd.grad(y.sum(), x)[0]
    (tensor([0., 2.]), tensor([0.4007, 1.2661]))
    """

    def __init__(self, name: DerivativeName = "bsilu", alpha: float | None = None) -> None:
        super().__init__()
        self.derivative = derivative(name, alpha)

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call itself, or that of ReLU with the other derivative."""
        called, args_, kwargs_ = as_called(func, args, kwargs)
        if called not in _RELUS:
            return func(*args, **kwargs)
        x = args_[0] if args_ else kwargs_["input"]
        if not x.requires_grad:
            return func(*args, **kwargs)
        with without_interception():
            return _SugarReLU.apply(x, self.derivative, _inplace(called, args_, kwargs_))  # type: ignore[no-untyped-call]
