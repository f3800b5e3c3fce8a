"""Tiny networks of random weights, one of each family of timm and of transformers that is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from proxygrad.models.torchvision_compat import import_torchvision


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import_torchvision()
        timm = pytest.importorskip("timm", reason="timm is not installed")
        torch.manual_seed(0)
        made: nn.Module = timm.create_model(name, pretrained=False, num_classes=5, **options)
        return made

    return build


def _transformers(model: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        transformers = pytest.importorskip("transformers", reason="transformers is not installed")
        torch.manual_seed(0)
        made: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**options))
        return made

    return build


_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
_HF_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
}
#: By name: a function that builds it, or skips the test; each takes images of 3 x 32 x 32.
FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "timm test_resnet": _timm("test_resnet"),
    "timm test_efficientnet": _timm("test_efficientnet"),
    "timm test_convnext": _timm("test_convnext"),
    "timm test_nfnet": _timm("test_nfnet"),
    "timm test_mambaout": _timm("test_mambaout"),
    "timm vit": _timm("vit_tiny_patch16_224", **_VIT),
    "timm test_byobnet": _timm("test_byobnet"),
    "timm swin": _timm(
        "swin_tiny_patch4_window7_224",
        img_size=32,
        window_size=4,
        embed_dim=8,
        depths=(1, 1),
        num_heads=(1, 2),
    ),
    "transformers ViT": _transformers("ViTForImageClassification", "ViTConfig", **_HF_VIT),
    "transformers DeiT": _transformers("DeiTForImageClassification", "DeiTConfig", **_HF_VIT),
    "transformers ResNet": _transformers(
        "ResNetForImageClassification",
        "ResNetConfig",
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        num_labels=5,
    ),
    "transformers ConvNext": _transformers(
        "ConvNextForImageClassification",
        "ConvNextConfig",
        hidden_sizes=[8, 16],
        depths=[1, 1],
        num_stages=2,
        num_labels=5,
    ),
}
