"""Builders: makes a torch module from the builder's name in ``models.toml``.

A builder is named by the operator, in ``models.toml``, and never by a request. Three forms:

* ``torchvision:squeezenet1_0``: a model of torchvision's own registry, built without weights;
* ``timm:resnet18``: a model of timm, which the extra ``timm`` installs, built without weights;
* ``package.module:function``: any importable function that takes no arguments and returns a module.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from proxygrad.errors import BuilderError, near
from proxygrad.extras import lacks
from proxygrad.models.torchvision_compat import import_torchvision


def build(builder: str, **options: Any) -> nn.Module:
    """The module that ``builder`` names, called with ``options``.

    Raises `BuilderError`: what was not found, or what went wrong.
    """
    function = find(builder)
    try:
        module = function(**options)
    except Exception as error:
        raise BuilderError(f"builder {builder!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise BuilderError(f"builder {builder!r} returned a {type(module).__name__}, not a torch.nn.Module")
    return module


def find(builder: str) -> Callable[..., Any]:
    """The function that ``builder`` names, not called yet."""
    source, colon, name = builder.partition(":")
    if not (source and colon and name):
        raise BuilderError(
            f"builder {builder!r} is none of 'torchvision:<model>', 'timm:<model>' and "
            "'<package.module>:<function>'"
        )
    if source == "torchvision":
        return _from_torchvision(name)
    return _from_timm(name) if source == "timm" else _from_module(builder, source, name)


def import_timm() -> Any:
    """The package timm. Raises `BuilderError` where it is not installed."""
    import_torchvision()  # timm imports it, and cannot declare what it lacks beside some builds of torch
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise BuilderError(f"a builder of timm: {lacks(error, 'timm')}") from error


def _from_torchvision(name: str) -> Callable[..., Any]:
    models = import_torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        raise BuilderError(
            f"torchvision has no classification model {name!r}; near names: {', '.join(near(name, known))}"
        )
    return partial(models.get_model, name, weights=None)


def _from_timm(name: str) -> Callable[..., Any]:
    timm = import_timm()
    known = [*timm.list_models(), *timm.list_pretrained(f"{name.partition('.')[0]}.*")]
    if name not in known:
        raise BuilderError(f"timm has no model {name!r}; near names: {', '.join(near(name, known))}")
    return partial(timm.create_model, name, pretrained=False)


def _from_module(builder: str, source: str, name: str) -> Callable[..., Any]:
    try:
        module = importlib.import_module(source)
    except Exception as error:
        raise BuilderError(f"builder {builder!r}: cannot import {source!r}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise BuilderError(f"builder {builder!r}: module {source!r} has no function {name!r}")
    return function  # type: ignore[no-any-return]
