"""ProxyGrad: see what a unit of a network responds to.

::

    import proxygrad as pg

    network = pg.load("digits")
    images = pg.maximize(network, [f"fc:{unit}" for unit in range(10)])
    pg.grid(images).save("digits.png")

    with pg.surrogate(slope=0.05):  # the method alone, in a loop of one's own
        loss = model(x)[0, 3]
    loss.backward()

Public names are imported on first use, so that ``import proxygrad`` stays light and the parts without
torch (`proxygrad.spec`, `proxygrad.errors`) can be used where torch is not installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from proxygrad.version import __version__

if TYPE_CHECKING:
    from proxygrad.attribution.attribute import attribute
    from proxygrad.attribution.result import Attribution
    from proxygrad.backward.sugar import sugar
    from proxygrad.backward.surrogate import surrogate
    from proxygrad.client import AsyncClient, Client
    from proxygrad.engine.checkpoint import Checkpoint
    from proxygrad.engine.engine import Engine
    from proxygrad.engine.future import RenderFuture
    from proxygrad.engine.rendering import Rendering
    from proxygrad.images import grid
    from proxygrad.langevin.discriminator import Discriminator
    from proxygrad.maximization.ascent import maximize
    from proxygrad.maximization.sampling import SampleSet, sample
    from proxygrad.maximization.visualization import Visualization, VisualizationList
    from proxygrad.models.catalog import Catalog
    from proxygrad.models.loading import load
    from proxygrad.networks.network import Network
    from proxygrad.objectives.base import Objective
    from proxygrad.objectives.directions import Direction, Energy
    from proxygrad.objectives.units import Channel, Logit, Margin, Neuron, TopQuarter
    from proxygrad.optim.update_rules import StepContext, UpdateRule
    from proxygrad.parameterizations import Parameterization, spectrum
    from proxygrad.spec import Result, Spec
    from proxygrad.spec.robustness import Robustness
    from proxygrad.spec.settings import AscentSettings
    from proxygrad.training.gaf import GAF
    from proxygrad.transforms import Transform

#: Where each public name is defined.
_HOMES = {
    "GAF": "training.gaf",
    "AscentSettings": "spec.settings",
    "AsyncClient": "client",
    "Attribution": "attribution.result",
    "Catalog": "models.catalog",
    "Channel": "objectives.units",
    "Checkpoint": "engine.checkpoint",
    "Client": "client",
    "Direction": "objectives.directions",
    "Discriminator": "langevin.discriminator",
    "Energy": "objectives.directions",
    "Engine": "engine.engine",
    "Logit": "objectives.units",
    "Margin": "objectives.units",
    "Network": "networks.network",
    "Neuron": "objectives.units",
    "Objective": "objectives.base",
    "Parameterization": "parameterizations",
    "RenderFuture": "engine.future",
    "Rendering": "engine.rendering",
    "Result": "spec",
    "Robustness": "spec.robustness",
    "SampleSet": "maximization.sampling",
    "Spec": "spec",
    "StepContext": "optim.update_rules",
    "TopQuarter": "objectives.units",
    "Transform": "transforms",
    "UpdateRule": "optim.update_rules",
    "Visualization": "maximization.visualization",
    "VisualizationList": "maximization.visualization",
    "attribute": "attribution.attribute",
    "grid": "images",
    "load": "models.loading",
    "maximize": "maximization.ascent",
    "sample": "maximization.sampling",
    "spectrum": "parameterizations",
    "sugar": "backward.sugar",
    "surrogate": "backward.surrogate",
}

__all__ = [
    "GAF",
    "AscentSettings",
    "AsyncClient",
    "Attribution",
    "Catalog",
    "Channel",
    "Checkpoint",
    "Client",
    "Direction",
    "Discriminator",
    "Energy",
    "Engine",
    "Logit",
    "Margin",
    "Network",
    "Neuron",
    "Objective",
    "Parameterization",
    "RenderFuture",
    "Rendering",
    "Result",
    "Robustness",
    "SampleSet",
    "Spec",
    "StepContext",
    "TopQuarter",
    "Transform",
    "UpdateRule",
    "Visualization",
    "VisualizationList",
    "__version__",
    "attribute",
    "grid",
    "load",
    "maximize",
    "sample",
    "spectrum",
    "sugar",
    "surrogate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
