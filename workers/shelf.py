"""The models of one worker process: each ready to be asked about, or with what is wrong with it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Self

from proxygrad.errors import ModelError, UnknownModel
from proxygrad.models import Catalogue
from proxygrad.network import Network
from workers.catalog import ServedModel
from workers.jobs import Problem

_log = logging.getLogger(__name__)


class Shelf:
    """Networks by name. ``problems`` says of the others why they are not there."""

    def __init__(self, networks: Mapping[str, Network], problems: Mapping[str, Problem]) -> None:
        self._networks = dict(networks)
        self._problems = dict(problems)

    @classmethod
    def load(cls, catalogue: Catalogue, device: str) -> Self:
        """Load every model of ``catalogue``; one that cannot be loaded does not keep the others away."""
        networks: dict[str, Network] = {}
        problems: dict[str, Problem] = {}
        for name in catalogue.names:
            try:
                network = catalogue.load(name, device)
                _log.info("model %s: %d layers, on %s", name, len(network.info.layers), device)
                networks[name] = network
            except ModelError as error:
                _log.warning("model %s is not served: %s", name, error)
                problems[name] = Problem(code=error.code, detail=str(error))
            except Exception as error:
                _log.exception("model %s is not served", name)
                detail = f"{type(error).__name__}: {error}"
                problems[name] = Problem(code=ModelError.code, detail=detail)
        return cls(networks, problems)

    def network(self, name: str) -> Network:
        """The network of that name. Raises `UnknownModel`, or `ModelError` with what is wrong with it."""
        if name in self._problems:
            raise ModelError(self._problems[name].detail)
        if name not in self._networks:
            raise UnknownModel(name, [*self._networks, *self._problems])
        return self._networks[name]

    @property
    def served(self) -> tuple[ServedModel, ...]:
        """What to publish."""
        ready = [ServedModel(name=name, info=network.info) for name, network in self._networks.items()]
        broken = [ServedModel(name=name, problem=problem) for name, problem in self._problems.items()]
        return (*ready, *broken)
