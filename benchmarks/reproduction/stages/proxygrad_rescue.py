"""ProxyGrad on trained networks: units that plain ascent leaves at 0, and too high slopes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import trained_networks
from benchmarks.asking import ratios
from benchmarks.reproduction.stage import Claim, Context, Paper, Report, Table, Verdict
from proxygrad import Channel, Network, Neuron, VisualizationList, maximize

#: That of preset `max`.
SLOPE = 0.05
SLOPES = (0.0, SLOPE, 0.2, 1.0)
#: "Higher" means by 5 % in the median.
HIGHER = 1.05
NOT_HERE: Verdict = "cannot be tested here"


@dataclass(frozen=True)
class Subject:
    """A network and what is asked of it: the first ``units`` of each layer, in ``steps`` steps."""

    name: str
    make: Callable[[Path], Network]
    layers: tuple[str, ...]
    units: int
    steps: int
    shared: bool = True


@dataclass(frozen=True)
class Row:
    """The same units with each slope, seed 0: ``found[slope]``."""

    layer: str
    objective: str
    found: dict[float, VisualizationList]

    @property
    def stuck(self) -> list[bool]:
        return [each.stuck for each in self.found[0.0]]

    @property
    def revived(self) -> int:
        """Stuck units that `SLOPE` raised above their start."""
        pairs = zip(self.found[0.0], self.found[SLOPE], strict=True)
        return sum(
            plain.stuck and not proxy.stuck and proxy.activation > proxy.start_activation
            for plain, proxy in pairs
        )

    def ratios(self, slope: float, base: float = 0.0) -> list[float]:
        """Achieved activations with ``slope`` to those with ``base``, over the units that ``base`` moved."""
        return ratios(self.found[slope], self.found[base])


def subjects(quick: bool) -> list[Subject]:
    """Few units of few layers; a quick run has one layer of each network."""
    whole = [
        Subject("digits", lambda shared: trained_networks.digits(), ("layer2", "layer3"), 32, 64, False),
        Subject(
            "SqueezeNet", trained_networks.squeezenet, ("features.7", "features.10", "features.12"), 8, 32
        ),
        Subject("ResNet-20", trained_networks.resnet20, ("layer2.2", "layer3.2"), 16, 48),
    ]
    if not quick:
        return whole
    return [
        Subject(each.name, each.make, each.layers[-1:], 8, min(each.steps, 24), each.shared) for each in whole
    ]


def measure(subject: Subject, shared: Path | None, slopes: tuple[float, ...]) -> Iterator[Row]:
    network = subject.make(shared or Path())
    for layer in subject.layers:
        units = range(min(subject.units, network[layer].units))
        for kind in (Channel, Neuron):
            objectives = [kind(layer, unit) for unit in units]
            found = {
                slope: maximize(
                    network,
                    objectives,
                    slope=slope,
                    preset="max",
                    starts=1,
                    gaf="none",
                    steps=subject.steps,
                    progress=False,
                )
                for slope in slopes
            }
            yield Row(layer, kind.name, found)


def verdict(holds: bool) -> Verdict:
    return "holds" if holds else "does not hold"


def claims_of(subject: Subject, rows: list[Row]) -> list[Claim]:
    """Without rows: that the network is not there."""
    stuck, revived = sum(sum(row.stuck) for row in rows), sum(row.revived for row in rows)
    moved = [ratio for row in rows for ratio in row.ratios(SLOPE)]
    high = [ratio for row in rows for ratio in row.ratios(1.0, SLOPE)]
    units = sum(len(row.stuck) for row in rows)
    missing = "its weights are not there"
    return [
        Claim(
            "ProxyGrad",
            f"{subject.name}: plain activation maximization leaves units stuck, and slope {SLOPE:g} revives "
            "at least 95 % of them.",
            f"{stuck} of {units} stuck, {revived} revived" if rows else missing,
            verdict(stuck > 0 and revived >= 0.95 * stuck) if rows else NOT_HERE,
        ),
        Claim(
            "ProxyGrad",
            f"{subject.name}: on units that plain ascent does move, slope {SLOPE:g} ends higher too, by 5 % "
            "in the median.",
            f"ratio {median(moved):.3f} over {len(moved)} units" if moved else missing,
            verdict(median(moved) >= HIGHER) if moved else NOT_HERE,
        ),
        Claim(
            "ProxyGrad",
            f"{subject.name}: too high a slope is worse: slope 1 ends below slope {SLOPE:g}, by 5 % in the "
            "median.",
            f"ratio {median(high):.3f} over {len(high)} units" if high else missing,
            verdict(median(high) <= 1 / HIGHER) if high else NOT_HERE,
        ),
    ]


def row_of(subject: Subject, row: Row) -> tuple[str, ...]:
    shown = [row.ratios(slope) for slope in SLOPES[1:]]
    return (
        subject.name,
        row.layer,
        row.objective,
        str(len(row.stuck)),
        str(sum(row.stuck)),
        str(row.revived),
        *(f"{median(each):.2f}" if each else "–" for each in shown),
    )


class ProxyGradRescue:
    """The stage."""

    name = "proxygrad_rescue"
    title = "Trained networks: stuck units, and how high a slope"
    paper: Paper = "ProxyGrad"
    needs_shared = False

    def run(self, context: Context) -> Report:
        """Measure on each network that is there."""
        claims, table = list[Claim](), list[tuple[str, ...]]()
        chosen = subjects(context.quick)
        for number, subject in enumerate(chosen):
            context.progress(number, len(chosen), subject.name)
            there = not subject.shared or context.shared is not None
            rows = list(measure(subject, context.shared, SLOPES)) if there else []
            found = claims_of(subject, rows)
            # A quick run has too few units for the one between, which is close.
            claims += [found[0], found[2]] if context.quick else found
            table += [row_of(subject, row) for row in rows]
        columns = ("network", "layer", "objective", "units", "stuck", "revived")
        ratio_columns = tuple(f"ratio, slope {slope:g}" for slope in SLOPES[1:])
        return Report(
            tuple(claims),
            (
                Table(
                    "Units that plain ascent leaves stuck, and ratios to it",
                    columns + ratio_columns,
                    tuple(table),
                ),
            ),
            note="Same units, seed, steps and step size, preset `max`. A ratio is the median of achieved "
            "activations to those of plain ascent, over the units that plain ascent moved. That Leaky ReLUs "
            "keep local maxima is measured on the toy functions: there is no trained network with them here.",
        )


STAGE = ProxyGradRescue()
