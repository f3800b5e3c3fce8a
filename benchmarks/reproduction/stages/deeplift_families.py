"""DeepLIFT on torchvision's families of networks: how exactly contributions sum to the difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.reproduction.stage import Claim, Context, Paper, Report, Table
from proxygrad.attribution.attribute import attribute
from proxygrad.attribution.result import Attribution
from proxygrad.models.torchvision_compat import import_torchvision

#: Largest share of the difference that may be missed, by type.
BOUNDS = {torch.float32: 1e-5, torch.float64: 1e-9}


class Family(NamedTuple):
    """``name``: of torchvision's builder. ``size_px``: of the image. ``quick``: part of a quick run."""

    name: str
    family: str
    size_px: int
    quick: bool = False


FAMILIES = (
    Family("alexnet", "plain", 112),
    Family("squeezenet1_0", "plain", 112, True),
    Family("resnet18", "residual", 112, True),
    Family("regnet_y_400mf", "residual", 112),
    Family("densenet121", "dense", 112, True),
    Family("googlenet", "inception", 112),
    Family("inception_v3", "inception", 160, True),
    Family("mobilenet_v2", "mobile", 112),
    Family("mobilenet_v3_small", "mobile", 112, True),
    Family("mnasnet1_0", "mobile", 112),
    Family("shufflenet_v2_x1_0", "mobile", 112, True),
    Family("efficientnet_b0", "mobile", 112),
    Family("vit", "ViT", 112, True),
    Family("swin_t", "Swin", 112, True),
    Family("convnext_tiny", "ConvNeXt", 112, True),
    Family("maxvit_t", "MaxViT", 224),
)


class DeepLiftFamilies:
    """Delta, in float32 and float64, of one image and the logit that changes most."""

    name = "deeplift_families"
    title = "DeepLIFT: summation to delta on whole networks"
    paper: Paper = "DeepLIFT"
    needs_shared = False

    def run(self, context: Context) -> Report:
        """Measure each family; a quick run leaves some networks out, and float64."""
        chosen = [each for each in FAMILIES if each.quick or not context.quick]
        types = [dtype for dtype in BOUNDS if not (context.quick and dtype == torch.float64)]
        rows, worst, unruled = [], dict.fromkeys(types, 0.0), 0
        for done, each in enumerate(chosen):
            context.progress(done, len(chosen), each.name)
            found = [_attributed(each, dtype) for dtype in types]
            for dtype, attribution in zip(types, found, strict=True):
                worst[dtype] = max(worst[dtype], float(attribution.delta.relative.max()))
                unruled += len(attribution.unruled)
            rows.append(_row(each, found))
        claims = [_claim(dtype, worst[dtype], len(chosen)) for dtype in types]
        claims.append(
            Claim(
                "DeepLIFT",
                "Every operation of torchvision's families of classifiers has a rule.",
                f"{unruled} operations without a rule in {len(chosen)} networks",
                "holds" if unruled == 0 else "does not hold",
            )
        )
        columns = (
            "network",
            "family",
            "difference",
            *(f"missed, {_name(dtype)}" for dtype in types),
            "most by",
        )
        return Report(
            tuple(claims),
            (
                Table(
                    "What contributions miss of the difference, relative (rule `auto`)", columns, tuple(rows)
                ),
            ),
            note="Seeded random weights, with the statistics of batch norm taken from noise, so that every "
            "layer carries a signal; a random image against its blurred copy; the logit that differs most. "
            "The ViT is of the size ViT-Ti.",
        )


def _attributed(family: Family, dtype: torch.dtype) -> Attribution:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand((1, 3, family.size_px, family.size_px), generator=generator)
    network = _alive(_built(family), family.size_px)
    with torch.no_grad():
        blurred = torch.nn.functional.avg_pool2d(image, 5, stride=1, padding=2)
        unit = int((network(image) - network(blurred)).abs().argmax())
    return attribute(network, image, f"output:{unit}", reference=blurred, dtype=dtype)


def _built(family: Family) -> nn.Module:
    models: Any = import_torchvision().models
    torch.manual_seed(0)
    if family.name == "vit":
        network: nn.Module = models.VisionTransformer(
            image_size=family.size_px, patch_size=16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768
        )
        return network
    further = {"init_weights": True} if family.family == "inception" else {}
    build: Callable[..., nn.Module] = getattr(models, family.name)
    return build(weights=None, **further)


def _alive(network: nn.Module, size_px: int) -> nn.Module:
    """The network with weights under which no layer is silent: untrained ones keep next to no signal."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in network.named_parameters():
        if name.endswith("layer_scale"):  # of ConvNeXt: 1e-6 before training
            parameter.data.fill_(0.5)
        elif not parameter.any() and parameter.ndim == 2:  # heads that begin at 0
            parameter.data = torch.randn(parameter.shape, generator=generator) * parameter.shape[1] ** -0.5
    network.eval()
    for each in network.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.train().momentum = None  # the mean over all passes, of which there is one
    with torch.no_grad():
        network(torch.rand((4, 3, size_px, size_px), generator=generator))
    return network.eval()


def _row(family: Family, found: list[Attribution]) -> tuple[str, ...]:
    difference = float(found[-1].value - found[-1].reference_value)
    missed = [f"{float(each.delta.relative.max()):.1e}" for each in found]
    most = str(found[0].delta.operations[0]).partition(":")[0]
    return family.name, family.family, f"{difference:.3g}", *missed, most


def _claim(dtype: torch.dtype, worst: float, networks: int) -> Claim:
    return Claim(
        "DeepLIFT",
        f"Contributions sum to the logit's difference, within {BOUNDS[dtype]:g} of it in {_name(dtype)}.",
        f"{worst:.1e} at most, over {networks} networks",
        "holds" if worst <= BOUNDS[dtype] else "does not hold",
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


STAGE = DeepLiftFamilies()
