"""The input a module brings: torchvision's, timm's, and what is given instead."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from proxygrad.errors import InvalidRequest, NetworkError
from proxygrad.maximization.ascent import maximize
from proxygrad.models.torchvision_compat import import_torchvision
from proxygrad.networks.network import Network
from proxygrad.networks.preprocessing import preprocessing_of
from tests.support.networks import Small


def normalization(network: Network) -> tuple[list[float], list[float]]:
    return network._mean.flatten().tolist(), network._std.flatten().tolist()


@pytest.mark.parametrize(
    ("builder", "weights"),
    [
        ("squeezenet1_0", "SqueezeNet1_0_Weights"),
        ("inception_v3", "Inception_V3_Weights"),
        ("vit_b_16", "ViT_B_16_Weights"),
        ("efficientnet_b0", "EfficientNet_B0_Weights"),
        ("efficientnet_v2_s", "EfficientNet_V2_S_Weights"),
    ],
)
def test_torchvisions_models_bring_what_their_weights_say(builder: str, weights: str) -> None:
    models = import_torchvision().models
    arguments = {"init_weights": False} if builder == "inception_v3" else {}
    with torch.device("meta"):
        module = models.get_model(builder, **arguments)
    found, transforms = preprocessing_of(module), getattr(models, weights).IMAGENET1K_V1.transforms()
    assert found is not None
    assert (found.mean, found.std) == (tuple(transforms.mean), tuple(transforms.std))
    if builder in ("squeezenet1_0", "inception_v3", "vit_b_16"):
        assert found.input_shape[1:] == (transforms.crop_size[0],) * 2


def test_the_one_torchvision_classifier_with_other_transforms() -> None:
    models = import_torchvision().models
    with torch.device("meta"):
        module = models.efficientnet_v2_l()
    transforms = models.EfficientNet_V2_L_Weights.IMAGENET1K_V1.transforms()
    found = preprocessing_of(module)
    assert found is not None
    assert (found.mean, found.std) == (tuple(transforms.mean), tuple(transforms.std))


TIMM = {"input_size": (3, 24, 20), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "num_classes": 4}


@pytest.mark.parametrize("config", [TIMM, SimpleNamespace(**TIMM)], ids=["mapping", "object"])
@pytest.mark.parametrize("name", ["pretrained_cfg", "default_cfg"])
def test_timms_models_bring_their_own(config: Any, name: str, caplog: pytest.LogCaptureFixture) -> None:
    module: Any = Small()
    setattr(module, name, config)
    with caplog.at_level(logging.INFO, logger="proxygrad"):
        network = Network(module)
    assert network.input_shape == (3, 24, 20)
    mean, std = normalization(network)
    assert mean == pytest.approx([0.5, 0.4, 0.3])
    assert std == pytest.approx([0.2, 0.3, 0.4])
    assert "Small: input (3, 24, 20), mean (0.5, 0.4, 0.3) and std (0.2, 0.3, 0.4) of timm" in caplog.text
    assert maximize(module, "conv2:1", steps=1).image.shape == (3, 24, 20)


def test_what_is_given_wins() -> None:
    module: Any = Small()
    module.pretrained_cfg = TIMM
    network = Network(module, (3, 16, 16), mean=0.0, std=1.0)
    assert network.input_shape == (3, 16, 16)
    assert normalization(network) == ([0.0] * 3, [1.0] * 3)
    assert preprocessing_of(Small()) is None


@pytest.mark.parametrize(
    "given",
    [0.25, [0.25] * 3, (0.25,) * 3, np.full(3, 0.25), torch.full((3,), 0.25), torch.full((1, 3, 1, 1), 0.25)],
    ids=["number", "list", "tuple", "array", "tensor", "tensor of four dimensions"],
)
def test_mean_and_std_come_in_many_forms(given: Any) -> None:
    expected = Network(Small(), (3, 16, 16), mean=[0.25] * 3, std=[0.25] * 3)
    network = Network(Small(), (3, 16, 16), mean=given, std=given)
    assert normalization(network) == ([0.25] * 3, [0.25] * 3)
    assert network.info.digest == expected.info.digest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": [0.1, 0.2]}, r"mean \[0.1.*, 0.2.*\] has 2 values; the input has 3 channels"),
        ({"std": 0.0}, r"std \[0.0, 0.0, 0.0\] must be positive"),
        ({"mean": float("nan")}, r"mean \[nan, .* must be finite"),
    ],
)
def test_a_normalization_that_is_none_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        Network(Small(), (3, 16, 16), **arguments)


def test_a_raw_module_that_says_nothing_is_told_how() -> None:
    with pytest.raises(
        InvalidRequest, match=r"module Small does not say .*: proxygrad.Network\(module, input"
    ):
        maximize(Small(), "conv2:1")
    with pytest.raises(InvalidRequest, match=r"network 'digits' is of type str; valid: a proxygrad.Network"):
        maximize("digits", "fc:3")  # type: ignore[call-overload]
