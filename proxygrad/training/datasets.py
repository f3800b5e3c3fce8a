"""Image data sets to train on: read from where they are, split, and brought to mean 0 and deviation 1.

Nothing is downloaded, and nothing that could run code is read: MNIST comes as IDX files, CIFAR-10 in its
binary version.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from proxygrad.errors import InvalidRequest, ModelError
from proxygrad.training.digits import held_out_mask

DatasetName = Literal["digits", "mnist", "cifar10"]

#: Of MNIST's 10,000 test images every fifth is held out, so that easy and hard ones (the file is in two
#: halves, by two groups of writers) are in both parts alike.
HELD_OUT_EVERY = 5
_MNIST = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
_CIFAR = ("data_batch_1.bin", *(f"data_batch_{number}.bin" for number in range(2, 6)))
_CIFAR_TEST = "test_batch.bin"
_CIFAR_RECORD = 1 + 3 * 32 * 32


@dataclass(frozen=True)
class Dataset:
    """Images ``(N, C, H, W)``, normalized by the training part, and labels ``(N,)``; for training, held
    out."""

    name: DatasetName
    images: Tensor
    labels: Tensor
    held_out_images: Tensor
    held_out_labels: Tensor
    classes: int = 10


def load_dataset(name: DatasetName, folder: Path | None = None) -> Dataset:
    """One of the data sets.

    ``digits``: scikit-learn's 1,797 images of 8 x 8, every fifth of a class held out. ``mnist``: the 10,000
    images of the files ``t10k-images-idx3-ubyte.gz`` and ``t10k-labels-idx1-ubyte.gz`` in ``folder``, 8,000
    to train on and 2,000 held out. ``cifar10``: the binary version (``data_batch_1.bin`` and so on) in
    ``folder``, with its own test images. Raises `InvalidRequest` for an unknown name or a missing folder, and
    `ModelError` for files that are missing or damaged.
    """
    if name not in _LOADERS:
        raise InvalidRequest(f"data {name!r}; there are {', '.join(map(repr, get_args(DatasetName)))}")
    if name == "digits":
        return _digits()
    if folder is None:
        raise InvalidRequest(f"data {name!r} needs the folder that holds its files: {_FILES[name]}")
    return _LOADERS[name](folder)


def _split(name: DatasetName, parts: tuple[Tensor, Tensor, Tensor, Tensor]) -> Dataset:
    images, labels, held_out, held_out_labels = parts
    mean = images.mean(dim=(0, 2, 3), keepdim=True)
    deviation = images.std(dim=(0, 2, 3), keepdim=True)
    return Dataset(name, (images - mean) / deviation, labels, (held_out - mean) / deviation, held_out_labels)


def _digits(folder: Path | None = None) -> Dataset:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(data.target)
    out = held_out_mask(labels)
    return _split("digits", (images[~out], labels[~out], images[out], labels[out]))


def read_mnist(folder: Path) -> tuple[Tensor, Tensor]:
    """The 10,000 test images ``(N, 1, 28, 28)``, uint8, and labels ``(N,)``, of the files in ``folder``.

    Raises `ModelError` for files that are missing or damaged.
    """
    images = _idx(folder / _MNIST[0])[:, None]
    labels = _idx(folder / _MNIST[1]).long()
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        raise ModelError(f"{folder}: {tuple(images.shape)} images and {tuple(labels.shape)} labels")
    return images, labels


def _mnist(folder: Path) -> Dataset:
    pixels, labels = read_mnist(folder)
    images = pixels.float() / 255
    out = torch.arange(len(labels)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return _split("mnist", (images[~out], labels[~out], images[out], labels[out]))


def _idx(path: Path) -> Tensor:
    """An IDX file of bytes: two zeros, type 8, the number of dimensions, each as 4 bytes, and the values."""
    try:
        with gzip.open(path) as file:
            head = file.read(4)
            if len(head) < 4 or head[:3] != b"\0\0\x08" or not 1 <= head[3] <= 4:
                raise ModelError(f"{path} is not an IDX file of bytes")
            shape = [int.from_bytes(file.read(4), "big") for _ in range(head[3])]
            count = math.prod(shape)
            if count > 2**30:
                raise ModelError(f"{path} announces {count} values, more than a data set of this kind has")
            values = file.read(count + 1)
    except (OSError, EOFError) as error:
        raise ModelError(f"cannot read {path}: {error}; needed: {_FILES['mnist']}") from error
    if len(values) != count:
        raise ModelError(f"{path} is damaged: {shape} values announced, {len(values)} found")
    return torch.frombuffer(bytearray(values), dtype=torch.uint8).view(*shape)


def _cifar10(folder: Path) -> Dataset:
    nested = folder / "cifar-10-batches-bin"
    folder = nested if nested.is_dir() else folder
    parts = [_records(folder / name) for name in _CIFAR]
    test = _records(folder / _CIFAR_TEST)
    train = torch.cat(parts)
    return _split("cifar10", (*_labeled(train), *_labeled(test)))


def _records(path: Path) -> Tensor:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}; needed: {_FILES['cifar10']}") from error
    if not data or len(data) % _CIFAR_RECORD:
        raise ModelError(
            f"{path} is not of CIFAR-10's binary version: {len(data)} bytes, no multiple of 3073"
        )
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, _CIFAR_RECORD)


def _labeled(records: Tensor) -> tuple[Tensor, Tensor]:
    labels = records[:, 0].long()
    if int(labels.max()) > 9:
        raise ModelError(f"CIFAR-10 has labels 0 to 9; a record has {int(labels.max())}")
    return records[:, 1:].view(-1, 3, 32, 32).float() / 255, labels


_FILES: dict[DatasetName, str] = {
    "mnist": " and ".join(_MNIST),
    "cifar10": "data_batch_1.bin to data_batch_5.bin and test_batch.bin, CIFAR-10's binary version",
}
_LOADERS: dict[DatasetName, Callable[[Path], Dataset]] = {
    "digits": _digits,
    "mnist": _mnist,
    "cifar10": _cifar10,
}
