"""A network by its name: what `proxygrad.load` does."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from proxygrad.errors import InvalidRequest
from proxygrad.models.catalog import Catalog
from proxygrad.networks.network import Network
from proxygrad.paths import models_file

log = logging.getLogger(__name__)


def load(name: str, *, models: str | Path | None = None, device: str = "cpu") -> Network:
    """The network of that name: the bundled ``"digits"``, or one of a ``models.toml``.

    ``models``: path of the file; default: the user's own, where there is one. What the user should know of
    the model, such as class names that are missing, is logged as a warning. Raises `UnknownModel` with near
    names, or a `ModelError` when the model cannot be built or its weights cannot be read.
    """
    if not isinstance(name, str):
        raise InvalidRequest(
            f"model {name!r} is of type {type(name).__name__}; valid: a name, as 'digits'; a module becomes "
            "a network by proxygrad.Network(module, input_shape=…)"
        )
    path = Path(models) if models is not None else models_file(os.environ)
    network = Catalog.from_file(path).load(name, device)
    for note in network.info.notes:
        log.warning("model %s: %s", name, note)
    return network
