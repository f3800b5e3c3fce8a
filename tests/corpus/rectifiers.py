"""ReLU in all its spellings, and some that keep a gradient of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.corpus.case import Act, Case, Net

ATEN = torch.ops.aten


class OwnGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        own: Tensor = grads[0] * (ctx.saved_tensors[0] > 0)
        return own


def by_index(x: Tensor) -> Tensor:
    y = x * 1
    y[y < 0] = 0
    return y


def by_index_of_another(x: Tensor) -> Tensor:
    y = x.clone()
    y[x < 0] = 0
    return y


def product_in_place(x: Tensor) -> Tensor:
    y = x * 1
    y *= y > 0
    return y


def without_below_in_place(x: Tensor) -> Tensor:
    y = x * 1
    y -= y * (y < 0)
    return y


def put_at_places(x: Tensor) -> Tensor:
    places = torch.where(x > 0)
    return torch.zeros_like(x).index_put(places, x[places])


def added_at_places(x: Tensor) -> Tensor:
    flat = x.flatten()
    places = (flat > 0).nonzero()[:, 0]
    return torch.zeros_like(flat).index_add(0, places, flat[places]).view_as(x)


def tokens(x: Tensor) -> Tensor:
    return x.unsqueeze(1).flatten(2).transpose(1, 2)


SPELLINGS: dict[str, Act] = {
    "clamp": lambda x: x.clamp(min=0),
    "clamp of a tensor": lambda x: torch.clamp(x, min=torch.zeros(())),
    "clamp in place": lambda x: (x * 1).clamp_(0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "clip": lambda x: x.clip(0),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "max": lambda x: torch.max(torch.zeros(()), x),
    "minimum of the negative": lambda x: -torch.minimum(-x, torch.zeros(())),
    "Threshold": nn.Threshold(0, 0),
    "threshold in place": lambda x: functional.threshold(x * 1, 0, 0, inplace=True),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "where, the other way": lambda x: torch.where(x <= 0, torch.zeros_like(x), x),
    "where of a tensor": lambda x: x.where(x > 0, torch.zeros(())),
    "product with a mask": lambda x: x * (x > 0),
    "product with a number mask": lambda x: (x.detach() > 0).float() * x,
    "product in place": product_in_place,
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.0),
    "by index": by_index,
    "by the index of another": by_index_of_another,
    "mask of a copy": lambda x: x * (x.clone() > 0),
    "mask of a flat copy": lambda x: (x.flatten(1) * (x.flatten(1) > 0)).view_as(x),
    "mask of tokens": lambda x: (tokens(x) * (tokens(x) > 0)).transpose(1, 2).reshape(x.shape),
    "without what is below 0": lambda x: x - x.clamp_max(0),
    "without what a mask lets through": lambda x: x - x * (x < 0),
    "without what is chosen below 0": lambda x: x - torch.where(x < 0, x, 0),
    "with the rectified negative": lambda x: x + torch.relu(-x),
    "the clamped negative and it": lambda x: (-x).clamp(min=0) + x,
    "without what is below 0, in place": without_below_in_place,
    "aten relu": ATEN.relu.default,
    "aten clamp": lambda x: ATEN.clamp.default(x, 0),
    "aten where": lambda x: ATEN.where.self(ATEN.gt.Scalar(x, 0), x, ATEN.zeros_like.default(x)),
}


def scripted() -> Act:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: Act = torch.jit.trace(torch.relu, torch.rand(2, 3, requires_grad=True))
        return made


#: The slope does not reach these, and the network says so.
UNREACHED: dict[str, Act] = {
    "function of its own gradient": OwnGradient.apply,
    "TorchScript": scripted(),
    "half of x and |x|": lambda x: (x + x.abs()) / 2,
    "without a minimum": lambda x: x - torch.minimum(x, torch.zeros(())),
    "product with a sign": lambda x: x * x.sign().clamp(min=0),
    "maximum with nothing of it": lambda x: torch.max(x, 0 * x),
    "maximum with what is left of it": lambda x: torch.maximum(x, x - x),
    "maximum with a parameter": lambda x: torch.maximum(x, torch.zeros(1).requires_grad_()),
    "between two constants with a history": lambda x: torch.min(torch.max(x, 0 * x), 0 * x + 6),
    "largest of a stack": lambda x: torch.stack([x, torch.zeros_like(x)]).amax(0),
    "first of a sorted stack": lambda x: torch.stack([x, 0 * x]).topk(1, 0).values[0],
    "smooth maximum": lambda x: torch.logsumexp(torch.stack([x, torch.zeros_like(x)]) * 1e3, 0) / 1e3,
    "maxout": lambda x: torch.cat([x, 0 * x], 1).unflatten(1, (2, -1)).amax(1),
    "einsum with a mask": lambda x: torch.einsum("...,...->...", x, (x > 0).float()),
    "addcmul": lambda x: torch.addcmul(torch.zeros_like(x), x, (x > 0).float()),
    "lerp": lambda x: torch.lerp(torch.zeros_like(x), x, (x > 0).float()),
    "diagonal": lambda x: (torch.diag_embed((x > 0).float()) @ x.unsqueeze(-1)).squeeze(-1),
    "put at places": put_at_places,
    "added at places": added_at_places,
    "foreach clamp": lambda x: torch._foreach_clamp_min([x], 0.0)[0],
    "foreach maximum": lambda x: torch._foreach_maximum([x], 0.0)[0],
    "product with a step": lambda x: x * torch.heaviside(x.detach(), torch.zeros(())),
}
RECTIFIERS: dict[str, Case] = {
    **{name: Case(Net, act=act) for name, act in SPELLINGS.items()},
    **{name: Case(Net, act=act, reached=False) for name, act in UNREACHED.items()},
}
