"""models.toml, builders and weights files: what works, and an error that says what does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from proxygrad.errors import BuilderError, ModelError, UnknownModel, WeightsError
from proxygrad.langevin.discriminator import Discriminator, DiscriminatorArchitecture
from proxygrad.models import Catalog
from proxygrad.models.builders import build
from proxygrad.models.torchvision_compat import import_torchvision
from proxygrad.models.weights import load_into, read_state_dict
from tests.support import configured_networks
from tests.support.networks import Small

BUILDER = "tests.support.networks:Small"


def state() -> dict[str, Tensor]:
    return Small().state_dict()


def catalog(folder: Path, content: str) -> Catalog:
    path = folder / "models.toml"
    path.write_text(content)
    return Catalog.from_file(path)


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "nested.pt"])
def test_a_model_of_ones_own_from_each_kind_of_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"small.{suffix}"
    if suffix == "safetensors":
        save_file(state(), path)
    else:
        torch.save({"state_dict": state()} if "nested" in suffix else state(), path)
    models = catalog(
        tmp_path,
        f"""
        [models.mine]
        builder = "{BUILDER}"
        weights = "{path.name}"
        input_shape = [3, 16, 16]
        mean = [0.5, 0.5, 0.5]
        std = [0.2, 0.2, 0.2]
        classes = ["a", "b", "c", "d"]
        """,
    )
    network = models.load("mine")
    assert models.names == ("digits", "mine")
    assert network.info.classes == ("a", "b", "c", "d")
    assert network.info.layer("conv2").units == 6
    assert torch.equal(network.module.get_parameter("fc.weight"), state()["fc.weight"])


def test_what_is_odd_about_a_network_is_noted(tmp_path: Path) -> None:
    table = (
        configured_networks.table("odd", "Odd") + "mean = [0]\nstd = [1]\nclasses = ['a', 'b', 'c', 'd']\n"
    )
    unreached, mixed = catalog(tmp_path, table).load("odd").info.notes
    assert unreached.startswith("the slope does not reach ")
    assert mixed.startswith("images are run one by one: at layer ")
    ordinary = table.replace("Odd", "small")
    assert catalog(tmp_path, ordinary).load("odd").info.notes == ()


def test_a_model_with_a_discriminator(tmp_path: Path) -> None:
    table = configured_networks.table("mine") + 'discriminator = "d.safetensors"\n'
    models = catalog(tmp_path, table)
    with pytest.raises(ModelError, match=r"d\.safetensors does not exist"):
        models.load("mine")
    for shape, fits in (((1, 8, 8), True), ((1, 8, 12), False)):
        discriminator = Discriminator(DiscriminatorArchitecture.suited_to(shape, width=2, hidden=4))
        discriminator.save(tmp_path / "d.safetensors")
        if fits:
            assert models.load("mine").info.discriminator == discriminator.digest
        else:
            with pytest.raises(ModelError, match=r"takes images of \(1, 8, 12\), model 'mine' of"):
                models.load("mine")


def test_the_bundled_model_needs_no_file() -> None:
    network = Catalog.from_file(None).load("digits")
    assert network.input_shape == (1, 32, 32)
    assert network.info.layer("fc").kind == "logits"
    assert network.info.classes == tuple("0123456789")


def test_class_names_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("één\nzwei\n")
    models = catalog(
        tmp_path, f'[models.m]\nbuilder="{BUILDER}"\ninput_shape=[3,16,16]\nclasses="names.txt"\n'
    )
    assert models.load("m").info.classes == ("één", "zwei")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[models.m", r"models.toml is not valid TOML: .*end of document"),
        ("[models.m]\nbuilder = 3\n", r"models.m.builder: .*string.* \(got 3\)"),
        ("[models.m]\nweights = 'x'\n", r"models.m.builder is missing"),
        (
            f"[models.m]\nbuilder = '{BUILDER}'\nweigths = 'x'\nsize = 3\n",
            r"models.m.weigths: there is no such key; near key: weights; valid: builder, weights, "
            r"input_shape, mean, std, classes, discriminator; models.m.size: there is no such key; valid: ",
        ),
        (
            f"[model.m]\nbuilder = '{BUILDER}'\n",
            r"model: there is no such key; near key: models; valid: models",
        ),
        ("[models.'a/b']\nbuilder = 'a:b'\n", r"a/b.*pattern"),
    ],
)
def test_a_bad_models_file_is_named_with_the_place(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        catalog(tmp_path, content)


def test_a_models_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere.toml cannot be read: No such file"):
        Catalog.from_file(tmp_path / "nowhere.toml")


def test_an_unknown_model_names_near_ones() -> None:
    with pytest.raises(UnknownModel, match="unknown model 'digitz'; near names: digits"):
        Catalog.from_file(None).load("digitz")


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        ("squeezenet", "none of 'torchvision:<model>', 'timm:<model>' and"),
        ("torchvision:squeezenet1_00", "no classification model 'squeezenet1_00'; near names: squeezenet1_0"),
        ("no_such_package:f", "cannot import 'no_such_package'"),
        ("tests.support.networks:Absent", "has no function 'Absent'"),
        ("builtins:dict", "returned a dict, not a torch.nn.Module"),
        ("torch.nn:Linear", "failed: TypeError"),
    ],
)
def test_a_bad_builder_says_what_is_wrong(builder: str, message: str) -> None:
    with pytest.raises(BuilderError, match=message):
        build(builder)


def test_torchvision_by_name() -> None:
    module = build("torchvision:squeezenet1_0")
    assert sum(parameter.numel() for parameter in module.parameters()) == 1_248_424


class Evil:
    """Would write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"conv.weight": Evil(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(
        WeightsError,
        match=r"evil.pt is not a plain state dict: it names the function \S+, and loading it could run code",
    ):
        read_state_dict(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_truncated_file_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith("pt"):
        torch.save(state(), path)
    else:
        save_file(state(), path)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(WeightsError, match=rf"{path.name} cannot be read; is it truncated"):
        read_state_dict(path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_a_file_of_something_else_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        read_state_dict(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    models = catalog(tmp_path, f'[models.m]\nbuilder="{BUILDER}"\nweights="absent.safetensors"\n')
    with pytest.raises(WeightsError, match=r"absent.safetensors does not exist"):
        models.load("m")


def test_a_file_of_another_kind_of_content_is_named(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match=r"list.pt holds a list, not a state dict"):
        read_state_dict(tmp_path / "list.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"conv.weight": None},
            r"f is of another architecture: it lacks 'conv.weight'; the file has conv2.weight",
        ),
        (
            {"conv.weight": torch.zeros(8, 1, 3, 3)},
            r"'conv.weight' has shape \(8, 1, 3, 3\), the model needs \(8, 3,",
        ),
        ({"surplus": torch.zeros(1)}, r"the model has no 'surplus'"),
    ],
)
def test_another_architecture_names_the_first_mismatch(
    change: dict[str, Tensor | None], message: str
) -> None:
    other = {key: value for key, value in {**state(), **change}.items() if value is not None}
    with pytest.raises(WeightsError, match=message):
        load_into(Small(), other, "f")


def test_old_files_may_lack_the_training_counter() -> None:
    module, old = Small(), {key: value + 1 for key, value in state().items() if "num_batches" not in key}
    load_into(module, old, "f")
    assert torch.equal(module.fc.bias, old["fc.bias"])


def test_torchvision_imports_beside_this_torch() -> None:
    assert import_torchvision() is sys.modules["torchvision"]
    assert isinstance(import_torchvision().models.get_model("squeezenet1_1"), nn.Module)
