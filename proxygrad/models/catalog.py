"""The model catalog: the bundled ``digits`` and the models of the operator's ``models.toml``.

::

    [models.squeezenet]
    builder = "torchvision:squeezenet1_0"         # or "timm:resnet18", or "mypackage.module:function"
    weights = "IMAGENET1K_V1"                     # published ones, which bring all that follows

    [models.mine]
    builder = "mypackage.module:function"
    weights = "mine.safetensors"                  # a path, relative to this file
    input_shape = [3, 224, 224]
    mean = [0.485, 0.456, 0.406]
    std = [0.229, 0.224, 0.225]
    classes = ["tench", "goldfish"]               # names of the logits, or a text file with one a line
    discriminator = "mine-discriminator.safetensors"   # of `proxygrad train-discriminator`
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import ErrorDetails
from torch import nn

from proxygrad.errors import ModelError, UnknownModel, near
from proxygrad.langevin.discriminator import Discriminator
from proxygrad.models.builders import build
from proxygrad.models.fingerprint import fingerprint
from proxygrad.models.published import PublishedWeights, has_published, of_file, published
from proxygrad.models.weights import load_into, read_checkpoint
from proxygrad.networks.discovery.reach import unreached_notes
from proxygrad.networks.network import Network
from proxygrad.networks.preprocessing import preprocessing_of

BUNDLED = "digits"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]


class ModelEntry(BaseModel):
    """One ``[models.NAME]`` table of a ``models.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    builder: str
    weights: str | None = None
    input_shape: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | str | None = None
    discriminator: str | None = None

    def load(self, name: str, folder: Path, device: str) -> Network:
        """Build the module, fill it, and make it a `Network`. Relative paths start at ``folder``.

        What the table does not say of the input and the classes, the weights' own metadata do.
        """
        weights = self._weights(folder)
        module = build(weights.builder, **weights.options)
        notes = self._fill(module, weights, folder)
        network = Network(
            module,
            weights.input_shape if self.input_shape is None else self.input_shape,
            weights.mean if self.mean is None else self.mean,
            weights.std if self.std is None else self.std,
            name=name,
            classes=weights.classes if self.classes is None else self._class_names(folder),
            origin=self.builder,
            device=device,
        )
        if preprocessing_of(module) is None:
            notes += self._missing_normalization(weights)
        notes += [*_missing_names(network), *_oddities(network)]
        network.info = network.info.model_copy(update={"notes": tuple(notes)})
        if self.discriminator is not None:
            network.discriminator = Discriminator.load(_path(folder, self.discriminator))
        return network

    def _missing_normalization(self, weights: PublishedWeights) -> Iterator[str]:
        """A note where nothing is known of how pixels were normalized."""
        known = {"mean": (self.mean, weights.mean), "std": (self.std, weights.std)}
        missing = [name for name, values in known.items() if values == (None, None)]
        if missing:
            yield (
                f"no {' and '.join(missing)}: the network sees pixels from 0 to 1 without; "
                "set it in its table of models.toml"
            )

    def _weights(self, folder: Path) -> PublishedWeights:
        """What is known of the weights before they are read."""
        if self.weights is None:
            return PublishedWeights(self.builder)
        if _is_name(folder, self.weights):
            return published(self.builder, self.weights)
        return of_file(self.builder, Path(self.weights).name)

    def _fill(self, module: nn.Module, weights: PublishedWeights, folder: Path) -> list[str]:
        """Load the weights into ``module``; notes on what was left out of them."""
        if self.weights is None:
            return []
        if _is_name(folder, self.weights):
            return [*load_into(module, weights.download(), f"weights {self.weights}")]
        path = _path(folder, self.weights)
        state, notes = read_checkpoint(path)
        return [*notes, *load_into(module, state, f"weights file {path.name}")]

    def fingerprint(self, name: str, folder: Path) -> dict[str, JsonValue]:
        """What the model depends on; see `proxygrad.models.fingerprint`."""
        files = {
            "weights": None if self.weights is None else _path(folder, self.weights),
            "classes": _path(folder, self.classes) if isinstance(self.classes, str) else None,
            "discriminator": None if self.discriminator is None else _path(folder, self.discriminator),
        }
        return fingerprint(name, self.builder, files, self.model_dump(mode="json"))

    def _class_names(self, folder: Path) -> tuple[str, ...] | None:
        if not isinstance(self.classes, str):
            return self.classes
        if _is_name(folder, self.classes) and has_published(self.builder):
            return published(self.builder, self.classes, "classes").classes
        path = _path(folder, self.classes)
        try:
            return tuple(path.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"class names {path} cannot be read: {error}") from error


def _oddities(network: Network) -> Iterator[str]:
    """Notes where results are not what the method gives elsewhere, or slow. Raises `NetworkError`."""
    yield from unreached_notes(network.unreached)
    if network.batching.alone:
        yield f"images are run one by one: {network.batching.alone}"


def _path(folder: Path, name: str) -> Path:
    """The file ``name``, which is relative to ``folder`` unless it begins with ``/`` or ``~``."""
    return folder / Path(name).expanduser()


def _is_name(folder: Path, text: str) -> bool:
    """Whether ``text`` is the name of published weights, and no path."""
    return Path(text).suffix == "" and "/" not in text and not _path(folder, text).exists()


class _ModelsFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    models: dict[Name, ModelEntry] = Field(default_factory=dict)


class Catalog:
    """Models by name; each is loaded on request.

    ``entries``: the operator's models; one named ``digits`` replaces the bundled one. ``folder``: where
    relative paths start.
    """

    def __init__(self, entries: dict[str, ModelEntry], folder: Path) -> None:
        from proxygrad.models import digits

        bundled = ModelEntry(
            builder="proxygrad.models.digits:digits",
            weights=str(digits.WEIGHTS),
            input_shape=digits.INPUT_SHAPE,
            mean=digits.MEAN,
            std=digits.STD,
            classes=digits.CLASSES,
            discriminator=str(digits.DISCRIMINATOR),
        )
        self._entries = {BUNDLED: bundled, **entries}
        self._folder = folder

    @classmethod
    def from_file(cls, path: Path | None = None) -> Self:
        """The bundled model and those of the file at ``path``. Raises `ModelError` naming file and place."""
        if path is None:
            return cls({}, Path())
        try:
            with path.open("rb") as file:
                content = _ModelsFile.model_validate(tomllib.load(file))
        except OSError as error:
            raise ModelError(f"models file {path} cannot be read: {error.strerror or error}") from error
        except tomllib.TOMLDecodeError as error:
            raise ModelError(f"models file {path} is not valid TOML: {error}") from error
        except ValidationError as error:
            raise ModelError(f"models file {path}: {_problems(error)}") from error
        return cls(dict(content.models), path.parent)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, the bundled model first."""
        return tuple(self._entries)

    def load(self, name: str, device: str = "cpu") -> Network:
        """The model of that name, ready on ``device``. Raises `UnknownModel` or a `ModelError`."""
        return self._entry(name).load(name, self._folder, device)

    def fingerprint(self, name: str) -> dict[str, JsonValue]:
        """What that model depends on: as long as it is equal, the model need not be looked at again.

        Raises `UnknownModel`.
        """
        return self._entry(name).fingerprint(name, self._folder)

    def has_weights(self, name: str) -> bool:
        """False where the builder alone decides what the weights are, which may be others each time.

        Raises `UnknownModel`.
        """
        return self._entry(name).weights is not None

    def _entry(self, name: str) -> ModelEntry:
        if name not in self._entries:
            raise UnknownModel(name, self.names)
        return self._entries[name]


def _missing_names(network: Network) -> Iterator[str]:
    """A note where logits have no names."""
    logits = [layer.units for layer in network.info.layers if layer.kind == "logits"]
    names = len(network.classes or ())
    if logits and names < max(logits):
        has = f"{names} class names for {max(logits)} logits" if names else "no class names"
        yield f"{has}: results show the numbers of classes; set `classes` in its table of models.toml"


def _problems(error: ValidationError) -> str:
    """Every problem of a models file, each with its place and what is valid there."""
    return "; ".join(map(_problem, error.errors()))


def _problem(problem: ErrorDetails) -> str:
    *table, key = map(str, problem["loc"])
    place = ".".join([*table, key])
    if problem["type"] == "extra_forbidden":
        valid = list(ModelEntry.model_fields if table else _ModelsFile.model_fields)
        similar = near(key, valid, 1)
        hint = f"near key: {similar[0]}; " if similar else ""
        return f"{place}: there is no such key; {hint}valid: {', '.join(valid)}"
    if problem["type"] == "missing":
        return f"{place} is missing"
    return f"{place}: {problem['msg']} (got {problem['input']!r})"
