"""Short names of objectives, for captions and messages."""

from __future__ import annotations

from proxygrad.objectives.base import Objective, Sum, as_tuple
from proxygrad.objectives.function import FunctionObjective
from proxygrad.objectives.units import UnitObjective

#: Objectives that ``layer:unit`` tells apart, since a kind of layer has one of them.
PLAIN = ("channel", "neuron", "logit")


def label(objective: Objective) -> str:
    """``features.7:20``, ``features.7:20@3,3``, ``fc:3 - 0.5 fc:8``, …: one line of moderate length."""
    if isinstance(objective, Sum):
        return _shortened(_sum(objective))
    if isinstance(objective, FunctionObjective):
        return getattr(objective.function, "__name__", "function").strip("<>")
    if objective.unit is None:
        return _shortened(f"{type(objective).__name__.lower()} of {', '.join(objective.layers)}")
    position = as_tuple(objective.position)
    at = f"@{','.join(map(str, position))}" if position else ""
    text = f"{objective.layers[0]}:{objective.unit}{at}"
    name = objective.name if isinstance(objective, UnitObjective) else type(objective).__name__.lower()
    return text if name in PLAIN else f"{name} of {text}"


def _sum(objective: Sum) -> str:
    text = ""
    for weight, term in objective.terms:
        sign = "-" if weight < 0 else "+"
        factor = "" if abs(weight) == 1 else f"{abs(weight):g} "
        lead = f" {sign} " if text else ("-" if weight < 0 else "")
        text += f"{lead}{factor}{label(term)}"
    return text


def _shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
