"""Published weights: torchvision's and timm's, by the name of a model, with what they say of themselves.

Their metadata hold the input that they were trained on and the names of their classes. Files that are
downloaded are read without running code in them, as those of an operator are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from proxygrad.errors import WeightsError, near
from proxygrad.models.builders import import_timm
from proxygrad.models.torchvision_compat import import_torchvision

Shape = tuple[int, int, int]

#: torchvision builds these with another normalization inside wherever it loads its own weights.
_NORMALIZES_INSIDE = ("googlenet", "inception_v3")


class _Unknown(Exception):
    """There are no weights of that name; ``known``: those that there are."""

    def __init__(self, known: list[str]) -> None:
        self.known = known


def _nothing() -> dict[str, Tensor]:
    raise WeightsError("these weights are not published")


class PublishedWeights(NamedTuple):
    """Weights of one model. What they do not say is None.

    ``builder``: builds the module that takes them; ``options``: arguments for it. ``download`` returns the
    tensors by key, from the library's cache where they are in it.
    """

    builder: str
    options: Mapping[str, Any] = MappingProxyType({})
    input_shape: Shape | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None
    download: Callable[[], dict[str, Tensor]] = _nothing


def has_published(builder: str) -> bool:
    """Whether there are published weights for models of this builder."""
    return builder.partition(":")[0] in _SOURCES


def published(builder: str, name: str, key: str = "weights") -> PublishedWeights:
    """The weights ``name`` for ``builder``: ``DEFAULT``, torchvision's ``IMAGENET1K_V1``, a tag of timm.

    Raises `WeightsError` for an unknown name, naming the ``key`` that has it and the valid ones, and for a
    builder without any.
    """
    source, _, model = builder.partition(":")
    if source not in _SOURCES:
        raise WeightsError(
            f"{key} {name!r} name no existing file, and builder {builder!r} is neither torchvision's nor "
            "timm's"
        )
    try:
        return _SOURCES[source](model, name)
    except _Unknown as error:
        known = ", ".join(near(name, error.known) or error.known)
        raise WeightsError(
            f"{key} {name!r} are neither an existing file nor weights of {model!r}: {known}"
        ) from None


def of_file(builder: str, file_name: str) -> PublishedWeights:
    """torchvision's weights in a file that has the name it is published under, which ends in its hash.

    Of any other file nothing is known.
    """
    source, _, model = builder.partition(":")
    models = import_torchvision().models if source == "torchvision" else None
    if models is not None and model in models.list_models(module=models):
        for name, weights in models.get_model_weights(model).__members__.items():
            if weights.url.rpartition("/")[2] == file_name:
                return _torchvision(model, name)
    return PublishedWeights(builder)


def _torchvision(model: str, name: str) -> PublishedWeights:
    choices = import_torchvision().models.get_model_weights(model)
    if name not in choices.__members__:
        raise _Unknown(list(choices.__members__))
    weights = choices[name]
    transforms = weights.transforms()
    side_px = int(transforms.crop_size[0])
    return PublishedWeights(
        builder=f"torchvision:{model}",
        options={"transform_input": True} if model in _NORMALIZES_INSIDE else {},
        input_shape=(len(transforms.mean), side_px, side_px),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        classes=tuple(weights.meta["categories"]),
        download=partial(
            _downloaded,
            lambda: weights.get_state_dict(progress=False, check_hash=True, weights_only=True),
            name,
            model,
        ),
    )


def _timm(model: str, name: str) -> PublishedWeights:
    timm = import_timm()
    architecture = model.partition(".")[0]
    names = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
    if name not in (*names, "DEFAULT"):
        raise _Unknown([*names, "DEFAULT"])
    full_name = model if name == "DEFAULT" else f"{architecture}.{name}"
    config = timm.get_pretrained_cfg(full_name).to_dict()
    return PublishedWeights(
        builder=f"timm:{full_name}",
        options={},
        input_shape=config.get("input_size"),
        mean=config.get("mean"),
        std=config.get("std"),
        classes=_imagenet_names(timm, config),
        download=partial(
            _downloaded,
            lambda: timm.create_model(full_name, pretrained=True).state_dict(),
            name,
            model,
        ),
    )


def _imagenet_names(timm: Any, config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names that timm's configuration has, or those of the ImageNet subset with as many classes."""
    if names := config.get("label_names"):
        return tuple(names)
    subset = timm.data.infer_imagenet_subset(dict(config))
    return None if subset is None else tuple(timm.data.ImageNetInfo(subset).label_descriptions())


_SOURCES: dict[str, Callable[[str, str], PublishedWeights]] = {"torchvision": _torchvision, "timm": _timm}


def _downloaded(get: Callable[[], dict[str, Tensor]], name: str, model: str) -> dict[str, Tensor]:
    try:
        return get()
    except Exception as error:
        reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        raise WeightsError(
            f"weights {name!r} of {model!r} could not be downloaded ({reason}); "
            "offline, give the path of a file instead"
        ) from error
