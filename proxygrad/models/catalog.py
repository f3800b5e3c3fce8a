"""The model catalog: the bundled ``digits`` and the models of the operator's ``models.toml``.

::

    [models.squeezenet]
    builder = "torchvision:squeezenet1_0"         # or "mypackage.module:function"
    weights = "squeezenet1_0.safetensors"         # a path, relative to this file, or a torchvision name
    input_shape = [3, 224, 224]
    mean = [0.485, 0.456, 0.406]
    std = [0.229, 0.224, 0.225]
    classes = ["tench", "goldfish"]               # names of the logits, or a text file with one a line
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from proxygrad.errors import ModelError, UnknownModel
from proxygrad.models.builders import build
from proxygrad.models.fingerprint import fingerprint
from proxygrad.models.weights import download, load_into, read_state_dict
from proxygrad.networks.network import Network

BUNDLED = "digits"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]


class ModelEntry(BaseModel):
    """One ``[models.NAME]`` table of a ``models.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    builder: str
    weights: str | None = None
    input_shape: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | str | None = None

    def load(self, name: str, folder: Path, device: str) -> Network:
        """Build the module, fill it, and make it a `Network`. Relative paths start at ``folder``."""
        module = build(self.builder)
        if self.weights is not None:
            path = _path(folder, self.weights)
            by_name = not path.exists() and Path(self.weights).suffix == "" and "/" not in self.weights
            state = download(self.builder, self.weights) if by_name else read_state_dict(path)
            load_into(module, state, f"weights {self.weights}" if by_name else f"weights file {path}")
        return Network(
            module,
            self.input_shape,
            0.0 if self.mean is None else self.mean,
            1.0 if self.std is None else self.std,
            name=name,
            classes=self._class_names(folder),
            origin=self.builder,
            device=device,
        )

    def fingerprint(self, name: str, folder: Path) -> dict[str, JsonValue]:
        """What the model depends on; see `proxygrad.models.fingerprint`."""
        files = {
            "weights": None if self.weights is None else _path(folder, self.weights),
            "classes": _path(folder, self.classes) if isinstance(self.classes, str) else None,
        }
        return fingerprint(name, self.builder, files, self.model_dump(mode="json"))

    def _class_names(self, folder: Path) -> tuple[str, ...] | None:
        if not isinstance(self.classes, str):
            return self.classes
        path = _path(folder, self.classes)
        try:
            return tuple(path.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"class names {path} cannot be read: {error}") from error


def _path(folder: Path, name: str) -> Path:
    """The file ``name``, which is relative to ``folder`` unless it begins with ``/`` or ``~``."""
    return folder / Path(name).expanduser()


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
            raise ModelError(f"models file {path}: {_first_problem(error)}") from error
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


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    value = "" if first["type"] == "missing" else f" (got {first['input']!r})"
    return f"{place}: {first['msg']}{value}"
