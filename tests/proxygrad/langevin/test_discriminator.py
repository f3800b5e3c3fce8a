"""The discriminator: the authors' network at their size, scaled to others, and its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from proxygrad.errors import NetworkError, SizeUnsupported, WeightsError
from proxygrad.langevin.discriminator import Discriminator, DiscriminatorArchitecture
from proxygrad.networks.network import Network


def small(shape: tuple[int, int, int] = (1, 8, 8), seed: int = 0) -> Discriminator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        architecture = DiscriminatorArchitecture.suited_to(shape, width=2, hidden=4)
        return Discriminator(architecture, {"model": "mine"}).eval()


def images(count: int, shape: tuple[int, int, int] = (1, 8, 8)) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


def test_for_mnist_it_has_the_authors_layers() -> None:
    discriminator = Discriminator(DiscriminatorArchitecture.suited_to((1, 28, 28)))
    shapes = {key: tuple(value.shape) for key, value in discriminator.named_parameters() if value.ndim > 1}
    assert shapes == {
        "stages.0.weight": (32, 1, 5, 5),
        "stages.3.weight": (64, 32, 5, 5),
        "hidden.weight": (1024, 64 * 7 * 7),
        "logit.weight": (1, 1024),
    }
    kinds = [type(layer) for layer in discriminator.stages]
    assert kinds == [nn.Conv2d, nn.MaxPool2d, nn.ReLU] * 2
    assert discriminator.dropout.p == 0.5


@pytest.mark.parametrize(
    ("shape", "stages"),
    [((1, 4, 4), 2), ((1, 8, 8), 2), ((3, 32, 32), 2), ((3, 33, 64), 3), ((3, 224, 224), 5), ((1, 4, 99), 2)],
)
def test_larger_images_get_more_stages(shape: tuple[int, int, int], stages: int) -> None:
    discriminator = small(shape)
    assert len(discriminator.architecture.channels) == stages
    with torch.no_grad():
        assert discriminator(images(2, shape)).shape == (2,)


def test_the_log_probability_is_that_of_the_log_odds() -> None:
    discriminator = small().double()
    batch = images(5).double()
    odds = torch.exp(discriminator(batch))
    torch.testing.assert_close(discriminator.log_real(batch), torch.log(odds / (1 + odds)))


def test_one_image_does_not_influence_another() -> None:
    discriminator, batch = small(), images(3)
    each = torch.cat([discriminator(image) for image in batch.split(1)])
    torch.testing.assert_close(discriminator(batch), each)


@pytest.mark.parametrize("shape", [(2, 1, 8, 9), (2, 3, 8, 8), (1, 8, 8)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SizeUnsupported, match=r"takes images of 1x8x8, not of "):
        small()(torch.zeros(shape))


def test_images_that_are_too_small() -> None:
    with pytest.raises(SizeUnsupported, match="4 px or more, not 1x3x8"):
        DiscriminatorArchitecture.suited_to((1, 3, 8))
    with pytest.raises(SizeUnsupported, match="1x7x8 are too small for 3 stages"):
        Discriminator(DiscriminatorArchitecture(input_shape=(1, 7, 8), channels=(2, 2, 2), hidden=4))


def test_a_file_holds_everything_and_is_the_same_each_time(tmp_path: Path) -> None:
    discriminator = small()
    discriminator.trained_with.update(b=1, a=[2.5])
    discriminator.save(tmp_path / "a.safetensors")
    discriminator.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    loaded = Discriminator.load(tmp_path / "a.safetensors")
    assert not loaded.training
    assert loaded.trained_with == {"model": "mine", "b": 1, "a": [2.5]}
    assert loaded.digest == discriminator.digest != small(seed=1).digest
    assert torch.equal(loaded(images(2)), discriminator(images(2)))


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    with pytest.raises(WeightsError, match=r"d\.safetensors does not exist"):
        Discriminator.load(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        Discriminator.load(path)
    save_file(small().state_dict(), path)
    with pytest.raises(WeightsError, match="is no discriminator"):
        Discriminator.load(path)
    other = small()
    other.architecture = DiscriminatorArchitecture.suited_to((1, 8, 8), width=3, hidden=4)
    other.save(path)
    with pytest.raises(WeightsError, match="does not fit together"):
        Discriminator.load(path)
    with pytest.raises(WeightsError, match="cannot be written"):
        small().save(tmp_path / "nowhere" / "d.safetensors")


def test_a_network_keeps_a_frozen_copy() -> None:
    network = Network(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), (1, 8, 8), 0, 1)
    assert network.discriminator is None
    assert network.info.discriminator is None
    digest = network.info.digest
    discriminator = small().train()
    network.discriminator = discriminator
    kept = network.discriminator
    assert kept is not None
    assert kept is not discriminator
    assert not kept.training
    assert not any(each.requires_grad for each in kept.parameters())
    assert network.info.discriminator == discriminator.digest
    assert network.info.digest == digest
    with pytest.raises(NetworkError, match=r"takes images of \(1, 8, 9\), model 'network' of \(1, 8, 8\)"):
        network.discriminator = small((1, 8, 9))
    network.discriminator = None
    assert network.info.discriminator is None
