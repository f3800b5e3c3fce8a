"""The midpoint rule: the gradient halfway between reference and input.

For ``f`` of degree two at most in all that varies, ``f(x) - f(x0)`` is exactly the gradient at
``(x + x0) / 2`` times ``x - x0``. So one rule is exact for whatever is linear (convolutions and matrix
products with weights, sums, means, padding, interpolation, batch norm, concatenation) and for every product
of two tensors that vary (attention, gates, squares): each factor's multiplier is the mean of the other over
both states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from proxygrad.attribution.recording.steps import Operand, Step
from proxygrad.engine.capacity import out_of_memory

Multipliers = Sequence[Tensor | None]
Sent = Iterable[tuple[Operand, Tensor]]
Rule = Callable[[Step, Multipliers], Sent]

#: Operations of degree two at most, by their names in aten.
_NAMES_TEXT = (
    "_adaptive_avg_pool2d _adaptive_avg_pool3d _sparse_addmm _sparse_mm _to_copy _unsafe_index "
    "_unsafe_view add addbmm addcmul addmm addmv "
    "addr alias_copy as_strided_copy avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d baddbmm bmm "
    "block_diag cat channel_shuffle clone col2im constant_pad_nd convolution copy cudnn_batch_norm cumsum "
    "diag_embed diagonal_copy diagonal_scatter dot embedding_renorm expand_copy fill flip gather "
    "grid_sampler_2d grid_sampler_3d im2col index index_add index_copy index_put index_select kron lerp "
    "masked_fill masked_scatter masked_select mean mm mul mv narrow_copy nansum native_batch_norm "
    "_native_batch_norm_legit_no_training neg outer permute_copy pixel_shuffle pixel_unshuffle put "
    "reflection_pad1d reflection_pad2d reflection_pad3d repeat replication_pad1d replication_pad2d "
    "replication_pad3d roll rot90 rsub scatter scatter_add select_copy select_scatter slice_copy "
    "slice_scatter split_copy split_with_sizes_copy stack sub sum t_copy take trace transpose_copy tril triu "
    "unfold_copy upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d "
    "upsample_nearest2d upsample_nearest3d upsample_trilinear3d _upsample_bicubic2d_aa "
    "_upsample_bilinear2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d "
    "vdot view_copy zero"
)
NAMES = frozenset(_NAMES_TEXT.split())


def midpoint(step: Step, multipliers: Multipliers) -> Sent:
    """Exact where the operation is of degree two at most in what varies."""
    given = multipliers[0]
    if step.name == "convolution" and given is not None and step.varying == [step.arguments["input"]]:
        weight = step.arguments["weight"].x
        return [(step.varying[0], convolution_transposed(step, given, weight))]
    if step.name in _PRODUCTS and given is not None and _of_operands(step):
        return _product(step, given)
    return differentiated(step, multipliers, lambda operand: operand.middle)


def gradient(step: Step, multipliers: Multipliers) -> Sent:
    """The gradient at the input: what an operation without a rule gets, and rule "gradient".

    One that torch cannot differentiate sends nothing, like a constant.
    """
    try:
        return differentiated(step, multipliers, lambda operand: operand.x)
    except (RuntimeError, NotImplementedError) as error:
        if out_of_memory(error):
            raise
        return []


def differentiated(step: Step, multipliers: Multipliers, at: Callable[[Operand], Tensor]) -> Sent:
    """The multipliers times the gradient of the operation at a point, by autograd; none where it has none."""
    points = {each: at(each).detach() for each in step.varying if each.has_multipliers}
    leaves = {each: value.clone() for each, value in points.items() if value.is_floating_point()}
    if not leaves:
        return []
    with torch.enable_grad():
        for leaf in leaves.values():
            leaf.requires_grad_()
        result: list[Any] = tree_flatten(step.run(leaves))[0]
        outs = [each for each in result if isinstance(each, Tensor)]
        pairs = [each for each in zip(outs, multipliers, strict=False) if each[0].requires_grad]
        ends = [(out, given) for out, given in pairs if given is not None]
        if not ends:
            return []
        wanted = list(leaves.values())
        found: Sequence[Tensor | None] = torch.autograd.grad(
            [out for out, _ in ends], wanted, [each.to(out) for out, each in ends], allow_unused=True
        )
    return [(operand, each) for operand, each in zip(leaves, found, strict=True) if each is not None]


def convolution_transposed(step: Step, given: Tensor, weight: Tensor) -> Tensor:
    """A convolution's multipliers for its input, with these weights, without running it again."""
    names = ("stride", "padding", "dilation", "transposed", "output_padding", "groups")
    how = [step.arguments[name] for name in names]
    x = given.new_empty(()).expand(step.arguments["input"].place.shape)
    return torch.ops.aten.convolution_backward(given, x, weight, None, *how, [True, False, False])[0]  # type: ignore[no-any-return]


#: Matrix products: the names of their factors in aten, and of what is added.
_PRODUCTS = {
    "mm": ("self", "mat2", ""),
    "bmm": ("self", "mat2", ""),
    "addmm": ("mat1", "mat2", "self"),
    "baddbmm": ("batch1", "batch2", "self"),
}


def _of_operands(step: Step) -> bool:
    """Both factors are dense."""
    return all(isinstance(step.arguments[name], Operand) for name in _PRODUCTS[step.name][:2])


def _product(step: Step, given: Tensor) -> Sent:
    """Of a matrix product, without running it again."""
    arguments: dict[str, Any] = step.arguments
    first, second, third = _PRODUCTS[step.name]
    a, b, added = arguments[first], arguments[second], arguments.get(third)
    scaled = given * arguments.get("alpha", 1)
    if a.varies:
        yield a, scaled @ b.middle.mT
    if b.varies:
        yield b, a.middle.mT @ scaled
    if isinstance(added, Operand) and added.varies:
        yield added, (given * arguments["beta"]).sum_to_size(added.place.shape)
