"""A party: the lanes of one question, which begin, step and end together.

Those asked for come first, with seeds from that of the question on; then, to compare, the plain ones with
the same seeds. They are in one group. What shall differ from each other is a family among its own kind:
that plain ones may differ too is what makes the comparison one of the slope alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from proxygrad.engine.group import GroupKey
from proxygrad.engine.lane import DiversityGroup, Lane
from proxygrad.errors import InvalidRequest, ProxyGradError
from proxygrad.networks.network import Network
from proxygrad.objectives.base import Objective
from proxygrad.objectives.units import UNIT_OBJECTIVES
from proxygrad.precision import Precision
from proxygrad.spec import Role, Spec


@dataclass(frozen=True, eq=False)
class RenderRequest:
    """``lanes`` are in the order of `Result.images`, each with its role; they fit in the group ``key``."""

    lanes: tuple[Lane, ...]
    roles: tuple[Role, ...]
    key: GroupKey

    @classmethod
    def of(cls, network: Network, spec: Spec, precision: Precision) -> RenderRequest:
        """What ``spec``, which is resolved, asks for. Raises `InvalidRequest` errors."""
        _, height, width = network.input_shape
        size = (spec.size_px, spec.size_px) if spec.size_px else (height, width)
        objective = requested_objective(spec).at({spec.layer: network.layer_shape(spec.layer, size)})
        if spec.diversity > 0 and not network.batch_first:
            raise InvalidRequest(
                f"diversity {spec.diversity:g} needs images in one batch, which layers of model "
                f"{network.name!r} that have no batch in front rule out; valid: diversity 0"
            )
        together = object()
        lanes = list(_lanes(spec, objective, together))
        roles: list[Role] = ["proxygrad"] * len(lanes)
        if spec.compare:
            lanes += _lanes(spec.baseline(), objective, together)
            roles += ["baseline"] * spec.images
        return cls(tuple(lanes), tuple(roles), GroupKey.of(network, lanes[0], size, precision))

    @property
    def leading(self) -> Lane:
        """Of those asked for, the one with the highest latest activation."""
        own = [lane for lane, role in zip(self.lanes, self.roles, strict=True) if role == "proxygrad"]
        return max(own, key=lambda lane: lane.curve[-1] if lane.curve else float("-inf"))

    @property
    def error(self) -> ProxyGradError | None:
        """Why it has failed, if it has: the first lane's error, with the number of its image."""
        for number, lane in enumerate(self.lanes):
            if lane.error is None:
                continue
            if len(self.lanes) == 1:
                return lane.error
            which = f"image {number} of {len(self.lanes)} ({self.roles[number]}, seed {lane.settings.seed})"
            named = type(lane.error)(f"{which}: {lane.error}")
            named.__cause__ = lane.error.__cause__
            return named
        return None


def requested_objective(spec: Spec) -> Objective:
    """The objective of a resolved `Spec`."""
    if spec.objective is None:
        raise ValueError("the request is not resolved: it has no objective")
    position = {} if spec.position is None else {"position": spec.position}
    return UNIT_OBJECTIVES[spec.objective](layer=spec.layer, unit=spec.unit, **position)


def _lanes(spec: Spec, objective: Objective, together: object) -> Iterator[Lane]:
    family = DiversityGroup(spec.diversity) if spec.diversity > 0 else None
    for seed in range(spec.seed, spec.seed + spec.images):
        settings = spec.model_copy(update={"seed": seed})
        yield Lane(settings, objective, family=family, together=together)
