"""Data sets are read from their files, split as documented, and refused where they are damaged."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
import torch

from proxygrad.errors import InvalidRequest, ModelError, ProxyGradError
from proxygrad.training.datasets import DatasetName, load_dataset

REPOSITORY = Path(__file__).parents[3]


def write_idx(path: Path, shape: tuple[int, ...], values: bytes) -> None:
    head = b"\0\0\x08" + bytes([len(shape)]) + b"".join(side.to_bytes(4, "big") for side in shape)
    path.write_bytes(gzip.compress(head + values))


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """Twenty images of 4 x 5; every fifth is held out."""
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", (20, 4, 5), bytes(n % 251 for n in range(400)))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", (20,), bytes(n % 10 for n in range(20)))
    return tmp_path


def test_mnist_is_read_and_every_fifth_image_held_out(mnist: Path) -> None:
    data = load_dataset("mnist", mnist)
    assert data.images.shape == (16, 1, 4, 5)
    assert data.held_out_labels.tolist() == [4, 9, 4, 9]
    assert data.labels[:5].tolist() == [0, 1, 2, 3, 5]
    assert float(data.images.mean()) == pytest.approx(0, abs=1e-6)
    assert float(data.images.std()) == pytest.approx(1, abs=1e-6)
    raw = torch.tensor([n % 251 for n in range(400)]).view(20, 20)[4].float()
    correlation = torch.corrcoef(torch.stack([raw, data.held_out_images[0].flatten()]))[0, 1]
    assert float(correlation) == pytest.approx(1, abs=1e-5)


def test_the_shared_mnist_is_8000_and_2000() -> None:
    folder = Path(os.environ.get("PROXYGRAD_SHARED") or REPOSITORY.parent / "shared") / "data" / "mnist"
    if not folder.is_dir():
        pytest.skip(f"MNIST is not at {folder}")
    data = load_dataset("mnist", folder)
    assert (len(data.labels), len(data.held_out_labels)) == (8000, 2000)
    assert int(torch.bincount(data.held_out_labels).min()) > 150


def test_digits_are_scikit_learns_in_their_own_size() -> None:
    pytest.importorskip("sklearn", reason="the images come with scikit-learn")
    data = load_dataset("digits")
    assert data.images.shape == (1442, 1, 8, 8)
    assert len(data.held_out_labels) == 355


def test_cifar_is_read_from_its_binary_version(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number, name in enumerate(["test_batch", *(f"data_batch_{n}" for n in range(1, 6))]):
        plane = bytes([number + 1]) * 1024 + bytes([100]) * 512 + bytes([200]) * 512 + bytes(range(256)) * 4
        (folder / f"{name}.bin").write_bytes(bytes([number]) + plane + bytes([9]) + plane)
    data = load_dataset("cifar10", tmp_path)
    assert data.images.shape == (10, 3, 32, 32)
    assert data.labels.tolist() == [1, 9, 2, 9, 3, 9, 4, 9, 5, 9]
    assert data.held_out_labels.tolist() == [0, 9]
    assert data.held_out_images[0, 1, 0, 0] < data.held_out_images[0, 1, 31, 31]  # green, by rows
    assert data.held_out_images[0, 2, 0, 0] < data.held_out_images[0, 2, 0, 31]


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("imagenet", {}, "'digits', 'mnist', 'cifar10'"),
        ("mnist", {}, "t10k-images-idx3-ubyte.gz and t10k-labels"),
        ("mnist", {"t10k-images-idx3-ubyte.gz": b"not gzip"}, "cannot read .*t10k-images"),
        ("mnist", {"t10k-images-idx3-ubyte.gz": gzip.compress(b"\0\0\x0d\x03")}, "not an IDX file of bytes"),
        (
            "mnist",
            {"t10k-images-idx3-ubyte.gz": gzip.compress(b"\0\0\x08\x02\0\0\0\x02\0\0\0\x02abc")},
            r"\[2, 2\] values announced, 3 found",
        ),
        (
            "mnist",
            {"t10k-images-idx3-ubyte.gz": gzip.compress(b"\0\0\x08\x02" + b"\xff" * 8)},
            "more than a data set",
        ),
        ("cifar10", {}, "cannot read .*data_batch_1.bin.*binary version"),
        ("cifar10", {"data_batch_1.bin": b"\x80\x04"}, "2 bytes, no multiple of 3073"),
    ],
)
def test_what_cannot_be_read_is_named(
    name: DatasetName, files: dict[str, bytes], message: str, tmp_path: Path
) -> None:
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ProxyGradError, match=message):
        load_dataset(name, tmp_path)


def test_images_without_as_many_labels_are_refused(mnist: Path) -> None:
    write_idx(mnist / "t10k-labels-idx1-ubyte.gz", (19,), bytes(19))
    with pytest.raises(ModelError, match="labels"):
        load_dataset("mnist", mnist)


def test_a_folder_is_needed() -> None:
    with pytest.raises(InvalidRequest, match="needs the folder"):
        load_dataset("cifar10")
