"""Summation to delta of each operation alone, and that it has a rule: in float64 to the last digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.attributed_functions import attributed, numbers

Case = tuple[Callable[[Tensor], Any], tuple[int, ...]]
W1, W2, W3 = numbers(6, 4, 3, seed=1), numbers(6, 4, 3, 3, seed=1), numbers(6, 4, 2, 2, 2, seed=1)
GROUPED, UP = numbers(8, 2, 3, 3, seed=1), numbers(4, 6, 3, 3, seed=1)
MATRIX, VECTOR = numbers(7, 5, seed=2), numbers(5, seed=3)
PLANES, LINE, SOLID = (2, 4, 9, 8), (2, 4, 11), (2, 4, 5, 6, 4)


def _positive(x: Tensor) -> Tensor:
    return x.square() + 0.5


def _written_in_place(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0] = y[:, 1] * 2
    y[:, 1:] += y[:, :1]
    y.relu_().mul_(3).sub_(x)
    y[y < -1] = 0.25
    return y


def _filled_row_by_row(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for row in range(x.shape[1]):
        out[:, row] = torch.tanh(x[:, row]) + (out[:, row - 1] if row else 0)
    return out


def _attention(x: Tensor, mask: bool) -> Tensor:
    hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
    q, k, v = (x.unsqueeze(1) * scale for scale in (1.0, 0.5, 2.0))
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=hidden if mask else None)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "leaky_relu": functional.leaky_relu,
    "negative leaky_relu": lambda x: functional.leaky_relu(x, -0.3),
    "prelu": lambda x: functional.prelu(x, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], dtype=x.dtype)),
    "rrelu": functional.rrelu,
    "elu": functional.elu,
    "selu": functional.selu,
    "celu": lambda x: functional.celu(x, 0.7),
    "gelu": functional.gelu,
    "gelu tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "mish": functional.mish,
    "softplus": lambda x: functional.softplus(x, beta=2.0),
    "softsign": functional.softsign,
    "softshrink": functional.softshrink,
    "hardshrink": functional.hardshrink,
    "tanhshrink": functional.tanhshrink,
    "logsigmoid": functional.logsigmoid,
    "hardtanh": functional.hardtanh,
    "hardsigmoid": functional.hardsigmoid,
    "hardswish": functional.hardswish,
    "threshold": lambda x: functional.threshold(x, 0.2, -0.4),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": lambda x: torch.log(_positive(x)),
    "log1p": lambda x: torch.log1p(_positive(x)),
    "sqrt": lambda x: torch.sqrt(_positive(x)),
    "rsqrt": lambda x: torch.rsqrt(_positive(x)),
    "reciprocal": lambda x: torch.reciprocal(_positive(x)),
    "cube": lambda x: x**3,
    "root": lambda x: _positive(x) ** 0.3,
    "power of a number": lambda x: 2.0**x,
    "abs": torch.abs,
    "sin": torch.sin,
    "erf": torch.erf,
    "atan": torch.atan,
    "floor": torch.floor,
    "clamp": lambda x: x.clamp(-0.3, 0.8),
    "clamp by tensors": lambda x: torch.clamp(x, torch.full_like(x, -0.2), torch.full_like(x, 0.4)),
    "clamp_min": lambda x: x.clamp_min(0.1),
    "clamp_max": lambda x: x.clamp_max(0.1),
    "maximum": lambda x: torch.maximum(x, torch.zeros((), dtype=x.dtype)),
    "max": lambda x: torch.max(x, torch.zeros((), dtype=x.dtype)),
    "minimum": lambda x: torch.minimum(x, torch.full((), 0.2, dtype=x.dtype)),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "where a constant": lambda x: torch.where(x > 0, x, 0.0),
    "mask": lambda x: x * (x > 0),
    "mask as a number": lambda x: x * (x >= 0.1).to(x.dtype),
    "two masks": lambda x: x * ((x > -0.5) & (x < 0.5)),
    "masks combined": lambda x: x * ((x > 1) | ~(x < 0.2)) + (x > 0).logical_xor(x > 0.3),
    "masked_fill": lambda x: x.masked_fill(x < 0, -0.2),
    "assigned": _written_in_place,
    "a side left out": lambda x: x + torch.relu(-x),
}
OPERATIONS: dict[str, Case] = {
    **{name: (function, (2, 6, 5)) for name, function in ACTIVATIONS.items()},
    "conv1d": (lambda x: functional.conv1d(x, W1, stride=2, padding=1), LINE),
    "conv2d": (lambda x: functional.conv2d(x, W2, dilation=2, padding=1), PLANES),
    "conv3d": (lambda x: functional.conv3d(x, W3), SOLID),
    "grouped": (lambda x: functional.conv2d(x, GROUPED, groups=2), PLANES),
    "transposed": (lambda x: functional.conv_transpose2d(x, UP, stride=2, output_padding=1), PLANES),
    "transposed 1d": (lambda x: functional.conv_transpose1d(x, numbers(4, 3, 3), stride=2), LINE),
    "linear": (lambda x: functional.linear(x, MATRIX, numbers(7)), (2, 3, 5)),
    "convolved with itself": (lambda x: functional.conv1d(x, x[:1, :, :3]), (1, 4, 11)),
    "max_pool1d": (lambda x: functional.max_pool1d(x, 3, 2, 1), LINE),
    "max_pool2d": (lambda x: functional.max_pool2d(x, 3, 2, 1), PLANES),
    "max_pool2d dilated": (lambda x: functional.max_pool2d(x, 2, 1, 0, dilation=2), PLANES),
    "max_pool2d ceil": (lambda x: functional.max_pool2d(x, 2, 2, ceil_mode=True), PLANES),
    "max_pool3d": (lambda x: functional.max_pool3d(x, 2, 1), SOLID),
    "adaptive_max_pool1d": (lambda x: functional.adaptive_max_pool1d(x, 3), LINE),
    "adaptive_max_pool2d": (lambda x: functional.adaptive_max_pool2d(x, (2, 3)), PLANES),
    "adaptive_max_pool3d": (lambda x: functional.adaptive_max_pool3d(x, 2), SOLID),
    "avg_pool1d": (lambda x: functional.avg_pool1d(x, 3, 2, 1), LINE),
    "avg_pool2d": (lambda x: functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False), PLANES),
    "avg_pool3d": (lambda x: functional.avg_pool3d(x, 2), SOLID),
    "adaptive_avg_pool": (lambda x: functional.adaptive_avg_pool2d(x, (2, 3)), PLANES),
    "lp_pool": (lambda x: functional.lp_pool2d(x, 2, 2), PLANES),
    "batch_norm": (nn.BatchNorm2d(4).double(), PLANES),
    "instance_norm": (lambda x: functional.instance_norm(x, weight=numbers(4)), PLANES),
    "group_norm": (lambda x: functional.group_norm(x, 2, numbers(4), numbers(4)), PLANES),
    "layer_norm": (lambda x: functional.layer_norm(x, (5,), VECTOR, VECTOR), (2, 3, 5)),
    "layer_norm of two dimensions": (lambda x: functional.layer_norm(x, (3, 5)), (2, 3, 5)),
    "rms_norm": (lambda x: functional.rms_norm(x, (5,), VECTOR), (2, 3, 5)),
    "local_response_norm": (lambda x: functional.local_response_norm(x, 3), PLANES),
    "normalize": (lambda x: functional.normalize(x, dim=1), (2, 3, 5)),
    "cosine_similarity": (lambda x: functional.cosine_similarity(x[:, :1], x[:, 1:], dim=2), (2, 3, 5)),
    "softmax": (lambda x: (4 * x).softmax(1), (2, 3, 5)),
    "softmax far apart": (lambda x: (300 * x).softmax(1), (2, 3, 5)),
    "softmin": (lambda x: functional.softmin(x, 1), (2, 3, 5)),
    "log_softmax": (lambda x: x.log_softmax(2), (2, 3, 5)),
    "log_softmax far apart": (lambda x: (300 * x).log_softmax(1), (2, 3, 5)),
    "logsumexp": (lambda x: x.logsumexp((1, 2)), (2, 3, 5)),
    "glu": (lambda x: functional.glu(x, 1), (2, 6, 5)),
    "added": (lambda x: x + torch.relu(x), (2, 5)),
    "cat": (lambda x: torch.cat([x, x.tanh(), x.flip(1)], 1), (2, 5)),
    "stack": (lambda x: torch.stack([x, x.tanh()], 1), (2, 5)),
    "rearranged": (lambda x: x.permute(0, 3, 1, 2)[:, 1:, ::2].roll(1, 2).flatten(2).mT.tanh(), PLANES),
    "strides": (lambda x: x.unfold(2, 4, 2).tanh(), LINE),
    "expanded": (lambda x: x[:, :1].expand(-1, 4, 11).tanh() + x, LINE),
    "repeated": (lambda x: x.repeat(1, 2, 1).tanh().repeat_interleave(2, 2), LINE),
    "padded": (lambda x: functional.pad(functional.pad(x, (1, 2), value=0.5), (2, 1), "reflect").sin(), LINE),
    "replicated": (lambda x: functional.pad(x, (1, 1, 2, 0), "replicate").sin(), PLANES),
    "indexed": (lambda x: x[:, [2, 0, 0], 1:].tanh(), LINE),
    "gathered": (lambda x: x.gather(2, torch.arange(6).expand(len(x), 4, 6)).tanh(), LINE),
    "scattered": (lambda x: torch.zeros_like(x).scatter_add(1, torch.ones_like(x).long(), x.tanh()), LINE),
    "selected": (lambda x: x.index_select(2, torch.tensor([3, 3, 1])).tanh(), LINE),
    "filled row by row": (_filled_row_by_row, LINE),
    "unfolded": (lambda x: functional.unfold(x, 3).sigmoid(), PLANES),
    "pixel_shuffle": (lambda x: functional.pixel_shuffle(x, 2).sigmoid(), PLANES),
    "multiplied": (lambda x: x[:, :2] * x[:, 2:], LINE),
    "three factors": (lambda x: x[:, 0] * x[:, 1] * x[:, 2], LINE),
    "divided": (lambda x: x[:, :2] / _positive(x[:, 2:]), LINE),
    "a number divided": (lambda x: 3 / _positive(x), LINE),
    "floor divided": (lambda x: torch.div(x, 0.3, rounding_mode="floor"), LINE),
    "addcmul": (lambda x: torch.addcmul(x, x.sin(), x, value=0.5), LINE),
    "addcdiv": (lambda x: torch.addcdiv(x, x.sin(), _positive(x), value=0.5), LINE),
    "lerp": (lambda x: torch.lerp(x[:, :2], x[:, 2:], 0.3), LINE),
    "prod": (lambda x: x.prod(1), LINE),
    "matmul": (lambda x: x @ x.mT, LINE),
    "addmm": (
        lambda x: torch.addmm(x[0, 0], x[0, :2, 1:5], x[0, :, 2:6].mT @ x[0], beta=2, alpha=0.5)[None],
        (1, 4, 11),
    ),
    "baddbmm": (lambda x: torch.baddbmm(x[:, :, :4], x, x.mT, beta=0.5, alpha=2), LINE),
    "einsum": (lambda x: torch.einsum("bij,bkj,bij->bik", x, x.tanh(), x), LINE),
    "bilinear": (lambda x: functional.bilinear(x, x.sin(), numbers(3, 5, 5)), (2, 5)),
    "attention": (lambda x: _attention(x, mask=False), LINE),
    "masked attention": (lambda x: _attention(x, mask=True), LINE),
    "interpolated": (lambda x: functional.interpolate(x, scale_factor=1.5, mode="bilinear"), PLANES),
    "bicubic": (lambda x: functional.interpolate(x, size=(5, 12), mode="bicubic", antialias=True), PLANES),
    "nearest": (lambda x: functional.interpolate(x, size=7), LINE),
    "grid_sample": (
        lambda x: functional.grid_sample(
            x, numbers(1, 3, 3, 2).tanh().expand(len(x), -1, -1, -1), align_corners=False
        ),
        PLANES,
    ),
    "mean": (lambda x: x.square().mean((1, 2)), LINE),
    "sum": (lambda x: x.tanh().sum(1), LINE),
    "cumsum": (lambda x: x.cumsum(2).tanh(), LINE),
    "amax": (lambda x: x.amax((1, 2)), PLANES),
    "amin": (lambda x: x.amin(2, keepdim=True), LINE),
    "max over one dimension": (lambda x: x.max(dim=1).values, LINE),
    "min over one dimension": (lambda x: x.min(2, keepdim=True)[0], LINE),
    "maximum of two": (lambda x: torch.maximum(x[:, :2], x[:, 2:]), LINE),
    "minimum of two": (lambda x: torch.minimum(x[:, :2], x[:, 2:]), LINE),
    "var": (lambda x: x.var(1), LINE),
    "std": (lambda x: x.std((1, 2), correction=0), LINE),
    "var_mean": (lambda x: torch.cat(torch.var_mean(x, 1), 1), LINE),
    "norm": (lambda x: x.norm(dim=1), LINE),
    "norm of order 1": (lambda x: x.norm(p=1, dim=1), LINE),
    "compared with each other": (lambda x: torch.where(x[:, :2] > x[:, 2:], x[:, :2].sin(), x[:, 2:]), LINE),
    "any and all": (
        lambda x: x.mean(2) * ((x > 1).any(2) | (x < 1).all(2)) + (x > -1.5).all(2).any(1, keepdim=True),
        LINE,
    ),
    "dropout": (lambda x: functional.dropout(x, training=False).tanh(), LINE),
    "cast": (lambda x: x.to(torch.float32).to(torch.float64).tanh(), LINE),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("rule", ["rescale", "revealcancel"])
def test_contributions_sum_to_the_difference(name: str, rule: str) -> None:
    function, shape = OPERATIONS[name]
    x, x0 = numbers(*shape, seed=5), 0.8 * numbers(*shape, seed=6)
    x0[:, 1] = x[:, 1]  # no difference somewhere
    found = attributed(function, x, x0, rule=rule)
    tolerance = 1e-6 if name == "cast" else 1e-12
    scale = float(found.contributions.abs().sum(dim=tuple(range(1, x.ndim))).max())
    assert found.unruled == ()
    assert float(found.delta.absolute.abs().max()) <= tolerance * max(1, scale)
    assert torch.isfinite(found.multipliers).all()
    assert scale > 0


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers(layer: Any) -> None:
    torch.manual_seed(0)
    for options in ({}, {"bidirectional": True, "num_layers": 2}, {"bias": False}):
        module = layer(4, 3, batch_first=True, **options).double()
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
            x = numbers(2, 5, 4).to(dtype)
            found = attributed(module, x, 0.5 * numbers(2, 5, 4, seed=1))
            assert float(found.delta.absolute.abs().max()) < tolerance


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_layers(batch_first: bool) -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(8, 2, 12, batch_first=batch_first).double()
    shape = (2, 5, 8) if batch_first else (5, 2, 8)
    module = nn.Sequential(encoder) if batch_first else _TokensFirst(encoder)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        x = numbers(2, 5, 8).to(dtype)
        found = attributed(module, x, 0.5 * numbers(2, 5, 8, seed=1))
        assert float(found.delta.relative.max()) < tolerance, shape


class _TokensFirst(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(x.transpose(0, 1)).transpose(0, 1)
        return result


NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "layer norm": lambda x: functional.layer_norm(x, (6,)),
    "instance norm": functional.instance_norm,
    "group norm": lambda x: functional.group_norm(x, 2),
    "RMS norm": lambda x: functional.rms_norm(x, (6,)),
    "normalized": lambda x: functional.normalize(x, dim=-1),
    "RMS norm by hand": lambda x: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6),
    "times one by": lambda x: (1 / (x.norm(dim=-1, keepdim=True) + 1e-6)) * x,
    "standardized": lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_that_the_reference_has_none_of(name: str) -> None:
    torch.manual_seed(0)
    weights = 0.5 * numbers(6, 6).to(torch.float32)

    def layers(x: Tensor) -> Tensor:
        for _ in range(6):
            x = NORMS[name](x @ weights).sin()
        return x

    found = attributed(layers, numbers(3, 4, 6).to(torch.float32), 0)
    assert float(found.delta.relative.max()) < 1e-4
    sizes = found.contributions.abs().sum((1, 2)) / (found.value - found.reference_value).abs()
    assert float(sizes.max()) < 1e6


def test_a_quotient_goes_by_the_mean_of_its_denominators() -> None:
    x, x0 = torch.tensor([[3.0, 2.0]]), torch.tensor([[1.0, 0.5]])
    found = attributed(lambda x: x[:, :1] / x[:, 1:], x.double(), x0.double())
    weight = float(torch.tensor(-1.0).cos() + 0.3)
    assert found.multipliers[0].tolist() == pytest.approx(
        [weight / 1.25, -weight * (2 * 1 + 0.5 * 3) / (2.5 * 2 * 0.5)]
    )
    opposite = attributed(lambda x: x[:, :1] / x[:, 1:], x.double(), -x0.double())
    assert float(opposite.multipliers[0, 0]) == pytest.approx(weight * (1 / 2 - 1 / 0.5) / 2)
