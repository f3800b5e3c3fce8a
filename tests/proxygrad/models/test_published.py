"""Published weights bring what they were trained on: input, normalization and class names."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path

import pytest
import torch

from proxygrad.errors import BuilderError, WeightsError
from proxygrad.models import Catalog
from proxygrad.models.builders import build
from proxygrad.models.published import published
from proxygrad.models.torchvision_compat import import_torchvision
from proxygrad.networks.network import Network
from tests.support.networks import Small
from tests.support.torchvision_files import CACHED, cached_weights

NO_NAMES = "no class names: results show the numbers of classes; set `classes` in its table of models.toml"
NO_MEAN = "no mean and std: the network sees pixels from 0 to 1 without; set it in its table of models.toml"


def loaded(folder: Path, table: str) -> Network:
    (folder / "models.toml").write_text(f"[models.m]\n{table}")
    return Catalog.from_file(folder / "models.toml").load("m")


def normalization(network: Network) -> tuple[list[float], list[float]]:
    return network._mean.flatten().tolist(), network._std.flatten().tolist()


def test_torchvisions_bring_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of random weights, which stand in torchvision's cache as if they had been downloaded."""
    state = cached_weights(tmp_path, monkeypatch)
    network = loaded(tmp_path, 'builder = "torchvision:squeezenet1_1"\nweights = "IMAGENET1K_V1"\n')
    assert torch.equal(network.module.state_dict()["features.0.weight"], state["features.0.weight"])
    mean, std = normalization(network)
    assert mean == pytest.approx([0.485, 0.456, 0.406])
    assert std == pytest.approx([0.229, 0.224, 0.225])
    assert network.input_shape == (3, 224, 224)
    assert network.info.classes is not None
    assert (len(network.info.classes), network.info.classes[0]) == (1000, "tench")
    assert network.info.notes == ()


def test_so_does_a_file_that_has_its_published_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached_weights(tmp_path, monkeypatch)
    network = loaded(tmp_path, f'builder = "torchvision:squeezenet1_1"\nweights = "{CACHED}"\n')
    assert network.info.classes is not None
    assert network.info.classes[1] == "goldfish"


def test_of_another_file_the_names_can_be_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(cached_weights(tmp_path, monkeypatch), tmp_path / "w.pt")
    table = 'builder = "torchvision:squeezenet1_1"\nweights = "w.pt"\n'
    assert loaded(tmp_path, table).info.notes == (NO_NAMES,)
    named = loaded(tmp_path, f'{table}classes = "IMAGENET1K_V1"\n').info
    assert (named.notes, (named.classes or ())[2]) == ((), "great white shark")


def test_what_the_table_says_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached_weights(tmp_path, monkeypatch)
    network = loaded(
        tmp_path,
        'builder = "torchvision:squeezenet1_1"\nweights = "DEFAULT"\ninput_shape = [3, 96, 64]\n'
        'mean = [0, 0, 0]\nclasses = ["a", "b"]\n',
    )
    assert (network.input_shape, normalization(network)[0]) == ((3, 96, 64), [0.0, 0.0, 0.0])
    assert normalization(network)[1] == pytest.approx([0.229, 0.224, 0.225])
    (note,) = network.info.notes
    assert note.startswith("2 class names for 1000 logits")


def test_code_in_torchvisions_cache_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached_weights(tmp_path, monkeypatch, {"features.0.weight": Touch(tmp_path / "ran")})
    with pytest.raises(WeightsError, match="IMAGENET1K_V1"):
        loaded(tmp_path, 'builder = "torchvision:squeezenet1_1"\nweights = "IMAGENET1K_V1"\n')
    assert not (tmp_path / "ran").exists()


class Touch:
    """Would write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_that_normalize_again_inside_are_built_so(name: str) -> None:
    """torchvision does so wherever it loads its own weights, and nowhere else."""
    weights = published(f"torchvision:{name}", "IMAGENET1K_V1")
    module = build(weights.builder, **{**weights.options, "init_weights": False})
    assert module.transform_input


def test_an_unknown_name_names_the_choices() -> None:
    with pytest.raises(
        WeightsError, match=r"'V9' are neither an existing file nor weights of 'squeezenet1_0': IMAGE"
    ):
        published("torchvision:squeezenet1_0", "V9")
    with pytest.raises(WeightsError, match=r"classes 'V9' are neither an existing file nor weights of"):
        published("torchvision:squeezenet1_0", "V9", "classes")
    with pytest.raises(WeightsError, match=r"'V9' name no existing file, and builder 'a:b' is neither"):
        published("a:b", "V9")


def test_a_download_that_fails_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """torchvision's own code, aimed at a port of this machine where nothing listens."""
    import_torchvision()
    weights = importlib.import_module("torchvision.models").SqueezeNet1_0_Weights.IMAGENET1K_V1
    unreachable = dataclasses.replace(weights.value, url="http://127.0.0.1:9/squeezenet1_0-b66bff10.pth")
    monkeypatch.setattr(weights, "_value_", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        WeightsError, match=r"'IMAGENET1K_V1' of 'squeezenet1_0' could not be downloaded .*offline"
    ):
        published("torchvision:squeezenet1_0", "IMAGENET1K_V1").download()


def test_a_network_of_ones_own_without_names_and_normalization_says_so(tmp_path: Path) -> None:
    torch.save({"model": Small().state_dict()}, tmp_path / "w.pt")
    table = 'builder = "tests.support.networks:Small"\ninput_shape = [3, 16, 16]\nweights = "w.pt"\n'
    checkpoint = "weights file w.pt is a training checkpoint: the weights are its 'model'"
    assert loaded(tmp_path, table).info.notes == (checkpoint, NO_MEAN, NO_NAMES)
    (note,) = loaded(tmp_path, f'{table}mean = [0, 0, 0]\nclasses = ["a", "b", "c", "d"]\n').info.notes[1:]
    assert note.startswith("no std: ")
    told = f'{table}mean = [0, 0, 0]\nstd = [1, 1, 1]\nclasses = ["a", "b", "c", "d"]\n'
    assert loaded(tmp_path, told).info.notes == (checkpoint,)


def test_timms_bring_their_own(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="needs timm, of the extra `timm`")
    network = loaded(tmp_path, 'builder = "timm:test_resnet"\n')
    assert network.input_shape == (3, 160, 160)
    assert normalization(network)[0] == pytest.approx([0.5, 0.5, 0.5])
    assert network.info.notes == (NO_NAMES,), "random weights: a logit means nothing"
    weights = published("timm:test_resnet", "r160_in1k")
    assert weights.input_shape == (3, 160, 160)
    assert weights.classes is not None
    assert (len(weights.classes), weights.classes[0]) == (1000, "tench, Tinca tinca")
    other = published("timm:resnet18", "tv_in1k")
    assert (other.builder, other.mean) == ("timm:resnet18.tv_in1k", (0.485, 0.456, 0.406))


def test_timms_unknown_names_have_near_ones() -> None:
    pytest.importorskip("timm", reason="needs timm, of the extra `timm`")
    with pytest.raises(BuilderError, match=r"timm has no model 'resnet1888'; near names: resnet18"):
        build("timm:resnet1888")
    with pytest.raises(WeightsError, match=r"nor weights of 'resnet18': tv_in1k"):
        published("timm:resnet18", "tv_ink")


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BuilderError, match=r"needs 'timm', which is not installed: .*\[timm\]"):
        build("timm:resnet18")
