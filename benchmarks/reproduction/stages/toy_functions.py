"""Why activation maximization fails: three functions of 11x11 pixels, and one of a single pixel.

The functions are those of examples/toy_functions.py; docs/why-activation-maximization-fails.md explains what
this stage measures and shows its pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.reproduction.stage import Claim, Context, Figure, Paper, Report, Table, Verdict
from benchmarks.two_stages import coefficients, optimum
from examples.toy_functions import CENTER, SIZE_PX, network_of, one_relu, one_stage, start, two_stages
from proxygrad import Channel, Network, Neuron, Objective, StepContext, Visualization, maximize
from proxygrad.optim.update_rules import Normalized
from proxygrad.spec.settings import Proxy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

SLOPE = 0.1
SLOPES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
QUICK_SLOPES = (0.0, 0.1, 1.0)
PROXIES: tuple[Proxy, ...] = ("surrogate", "network")
#: Value of the center pixel; all others are 0.
CENTERS = (0.0, 1.0, -1.0)
#: Random starts: uniform in -1 to 1 at every pixel.
RANDOM_STARTS = 16
#: At the optimum: to 1 %, which the shrinking last steps and float32 leave.
REACHED = 0.99
#: Of a Leaky ReLU as it is usually trained, the default of `torch.nn.LeakyReLU`.
LEAKY_SLOPE = 0.01


class Notch(nn.Module):
    """``relu(x) - 3 relu(x - 1/2)`` of each pixel: a peak of 1/2 at x = 1/2, and a flat part below 0."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) - 3 * F.relu(x - 0.5)


@dataclass(frozen=True)
class Recorder:
    """The usual update, which also keeps the images that it is given."""

    images: list[Tensor] = field(default_factory=list)
    state_names: ClassVar[tuple[str, ...]] = ()

    def step(
        self, params: Tensor, gradient: Tensor, state: dict[str, Tensor], context: StepContext
    ) -> Tensor:
        self.images.append(params[0].clone())
        return Normalized().step(params, gradient, state, context)


@dataclass(frozen=True)
class Toy:
    """A toy function with its objective and the largest value that any image has."""

    name: str
    network: Network
    objective: Objective
    optimum: float


def toys(best_of_two_stages: float) -> list[Toy]:
    """The optimum of one ReLU (mean) is 1, all bright; that of one stage (center) 2, the pixels beside it
    bright and those above and below it not. Both are sums of terms of one pixel each, to be chosen alone.
    """
    first, second, third = network_of(one_relu()), network_of(one_stage()), network_of(two_stages())
    return [
        Toy("one ReLU", first, Channel(last(first), 0), 1.0),
        Toy("one stage", second, Neuron(last(second), 0), 2.0),
        Toy("two stages", third, Channel(last(third), 0), best_of_two_stages),
    ]


def last(network: Network) -> str:
    return network.layers[-1].name


def climb(toy: Toy, slope: float, center: float, proxy: Proxy = "surrogate") -> Visualization:
    return maximize(
        toy.network,
        toy.objective,
        slope=slope,
        proxy=proxy,
        start=start(center),
        preset="max",
        progress=False,
    )


def climb_at_random(network: Network, slope: float, proxy: Proxy = "surrogate") -> list[float]:
    images = maximize(
        network,
        Channel(last(network), 0),
        slope=slope,
        proxy=proxy,
        images=RANDOM_STARTS,
        start_noise=0.5,
        preset="max",
        progress=False,
    )
    return [each.activation for each in images]


def notch(slope: float, value: float, proxy: Proxy = "surrogate") -> float:
    """What ascent on `Notch` reaches from ``value`` at every pixel."""
    network = network_of(Notch())
    image = torch.full((1, SIZE_PX, SIZE_PX), (value + 1) / 2)
    found = maximize(
        network, Channel("output", 0), slope=slope, proxy=proxy, start=image, preset="max", progress=False
    )
    return found.activation


def verdict(holds: bool) -> Verdict:
    return "holds" if holds else "does not hold"


class ToyFunctions:
    """The stage."""

    name = "toy_functions"
    title = "Toy functions: where activation maximization stops"
    paper: Paper = "ProxyGrad"
    needs_shared = False

    def run(self, context: Context) -> Report:
        """Measure."""
        slopes = QUICK_SLOPES if context.quick else SLOPES
        context.progress(0, 3, "optimum of two stages")
        best, image = optimum(coefficients())
        functions = toys(best)
        context.progress(1, 3, "three functions")
        found = {
            (toy.name, slope, center): climb(toy, slope, center)
            for toy in functions
            for slope in (0.0, SLOPE)
            for center in CENTERS
        }
        context.progress(2, 3, "slopes")
        sweep = {
            (proxy, slope): [climb(functions[2], slope, center, proxy) for center in CENTERS]
            for proxy in PROXIES
            for slope in slopes
        }
        random = {
            (proxy, slope): climb_at_random(functions[2].network, slope, proxy) for proxy, slope in sweep
        }
        leaky = {
            slope: climb_at_random(network_of(two_stages(LEAKY_SLOPE)), slope) for slope in (LEAKY_SLOPE, 0.3)
        }
        notches = {(slope, at): notch(slope, at) for slope in (0.0, 0.3, 0.35, 1.0) for at in (0.1, -0.5)}
        claims = [
            *claims_of_starts(functions, found),
            *claims_of_slopes(best, sweep, random, leaky),
            *claims_of_notch(notches),
        ]
        figures: tuple[Figure, ...] = (
            Figure("landscape", "The landscape of one stage, with the paths of both", draw_landscape),
            Figure(
                "images",
                "Two stages: what ascent makes of a bright center, and the optimum",
                partial(draw_images, functions[2], image),
            ),
            Figure(
                "plane",
                "Two stages: the plane through a random start and the ends of both paths",
                partial(draw_plane, functions[2]),
            ),
            Figure(
                "slopes", "Two stages: activation over the slope", partial(draw_slopes, best, sweep, random)
            ),
            Figure("notch", "A function on which too high a slope loses", draw_notch),
        )
        if context.quick:
            figures = figures[:2]  # the others take as long as the rest of a quick run
        return Report(tuple(claims), tables(functions, found, sweep, random, best), figures)


def claims_of_starts(
    functions: Sequence[Toy], found: dict[tuple[str, float, float], Visualization]
) -> list[Claim]:
    def values(slope: float, names: Sequence[str], centers: Sequence[float]) -> list[float]:
        best = {toy.name: toy.optimum for toy in functions}
        return [found[name, slope, center].activation / best[name] for name in names for center in centers]

    names = [toy.name for toy in functions]
    dark, bright = values(0.0, names, (0.0, -1.0)), values(0.0, names, (1.0,))
    simple, two = values(SLOPE, names[:2], CENTERS), values(SLOPE, names[2:], CENTERS)
    return [
        Claim(
            "ProxyGrad",
            "From zeros and from a dark center, plain activation maximization stays at exactly 0 on all "
            "three functions.",
            f"{sum(value == 0 for value in dark)} of {len(dark)} at 0",
            verdict(all(value == 0 for value in dark)),
        ),
        Claim(
            "ProxyGrad",
            "From a bright center, plain activation maximization stops below 5 % of the optimum.",
            f"highest {max(bright):.1%}",
            verdict(max(bright) < 0.05),
        ),
        Claim(
            "ProxyGrad",
            f"ProxyGrad (slope {SLOPE:g}) reaches the optimum to 1 % on one ReLU and on one stage, from "
            "every start.",
            f"lowest {min(simple):.1%}",
            verdict(min(simple) >= REACHED),
        ),
        Claim(
            "ProxyGrad",
            f"ProxyGrad (slope {SLOPE:g}) reaches 80 % of the optimum over all images on two stages, "
            "from every start.",
            f"lowest {min(two):.1%}",
            verdict(min(two) >= 0.8),
        ),
        Claim(
            "ProxyGrad",
            f"ProxyGrad (slope {SLOPE:g}) reaches that optimum to 1 % on two stages, from every start.",
            f"lowest {min(two):.1%}",
            verdict(min(two) >= REACHED),
        ),
    ]


def claims_of_slopes(
    best: float,
    sweep: dict[tuple[Proxy, float], list[Visualization]],
    random: dict[tuple[Proxy, float], list[float]],
    leaky: dict[float, list[float]],
) -> list[Claim]:
    def both(of: Any) -> str:
        return "; ".join(f"{proxy} {of(proxy)}" for proxy in PROXIES)

    def lowest(proxy: Proxy) -> float:
        return min(each.activation for each in sweep[proxy, SLOPE])

    def highest(proxy: Proxy) -> float:
        return max(each.activation for each in sweep[proxy, 1.0])

    def medians(proxy: Proxy) -> tuple[float, float]:
        return median(random[proxy, 0.0]), median(random[proxy, SLOPE])

    return [
        Claim(
            "ProxyGrad",
            f"From {RANDOM_STARTS} random starts on two stages, ProxyGrad (slope {SLOPE:g}) ends at least "
            "20 % higher in the median, in both readings.",
            both(
                lambda proxy: (
                    " to ".join(f"{value / best:.0%}" for value in medians(proxy)) + " of the optimum"
                )
            ),
            verdict(all(medians(proxy)[1] >= 1.2 * medians(proxy)[0] for proxy in PROXIES)),
        ),
        Claim(
            "ProxyGrad",
            f"Too high a slope is worse: on two stages slope 1 ends below slope {SLOPE:g} from every start, "
            "in both readings.",
            both(
                lambda proxy: f"{highest(proxy) / best:.0%} against {lowest(proxy) / best:.0%} of the optimum"
            ),
            verdict(all(highest(proxy) < lowest(proxy) for proxy in PROXIES)),
        ),
        Claim(
            "ProxyGrad",
            f"Leaky ReLUs keep local maxima: where two stages have slope {LEAKY_SLOPE:g} themselves, a proxy "
            "slope of 0.3 still ends at least 20 % higher in the median of random starts.",
            f"{median(leaky[LEAKY_SLOPE]):.3f} to {median(leaky[0.3]):.3f}",
            verdict(median(leaky[0.3]) >= 1.2 * median(leaky[LEAKY_SLOPE])),
        ),
    ]


def claims_of_notch(notches: dict[tuple[float, float], float]) -> list[Claim]:
    low = [notches[slope, 0.1] for slope in (0.0, 0.3)]
    high = [notches[slope, 0.1] for slope in (0.35, 1.0)]
    flat = [value for (_, at), value in notches.items() if at < 0]
    return [
        Claim(
            "ProxyGrad",
            "There is a function on which too high a slope loses: on relu(x) - 3 relu(x - 1/2) slopes below "
            "1/3 reach the peak of 1/2 to 1 % from 0.1, and slopes above it never leave 0.1.",
            f"slopes 0 and 0.3: {low[0]:.3f}, {low[1]:.3f}; slopes 0.35 and 1: {high[0]:.3f}, {high[1]:.3f}",
            verdict(min(low) >= REACHED / 2 and max(high) < 0.101),
        ),
        Claim(
            "ProxyGrad",
            "ProxyGrad revives whatever is silent: relu(x) - 3 relu(x - 1/2) from x = -1/2, too.",
            f"highest {max(flat):.3f}",
            verdict(max(flat) > 0),
        ),
    ]


def tables(
    functions: Sequence[Toy],
    found: dict[tuple[str, float, float], Visualization],
    sweep: dict[tuple[Proxy, float], list[Visualization]],
    random: dict[tuple[Proxy, float], list[float]],
    best: float,
) -> tuple[Table, ...]:
    rows = [
        (
            toy.name,
            *(f"{found[toy.name, slope, center].activation:.3f}" for center in CENTERS),
            f"{toy.optimum:.3f}",
        )
        for toy in functions
        for slope in (0.0, SLOPE)
    ]
    named = [
        (row[0], "plain" if number % 2 == 0 else "ProxyGrad", *row[1:]) for number, row in enumerate(rows)
    ]
    swept = [
        (
            proxy,
            f"{slope:g}",
            *(f"{each.activation / best:.1%}" for each in sweep[proxy, slope]),
            f"{median(random[proxy, slope]) / best:.1%}",
            f"{max(random[proxy, slope]) / best:.1%}",
        )
        for proxy, slope in sweep
    ]
    starts = ("zeros", "bright center", "dark center")
    return (
        Table(
            f"Activation reached, slopes 0 and {SLOPE:g}, reading `surrogate`",
            ("function", "ascent", *starts, "optimum"),
            tuple(named),
        ),
        Table(
            "Two stages: share of the optimum",
            ("reading", "slope", *starts, f"{RANDOM_STARTS} random starts, median", "highest"),
            tuple(swept),
        ),
    )


def draw_landscape(canvas: Canvas) -> None:
    """Over the pixel to the left of the center and the one above it; all others are 0."""
    canvas.set_size_inches(9, 4.2)
    network = network_of(one_stage())
    values = np.linspace(-1, 1, 101)
    heights = np.maximum(values[None, :], 0) - np.maximum(values[:, None], 0)
    corners = [(-0.6, 0.7), (-0.5, -0.4), (0.3, 0.8), (0.2, -0.7), (-0.9, 0.2)]
    for axes, slope in zip(canvas.subplots(1, 2, sharey=True), (0.0, SLOPE), strict=True):
        filled = axes.contourf(values, values, heights, 20, cmap="viridis")
        for left, above in corners:
            image = start(0.0)
            image[0, CENTER, CENTER - 1], image[0, CENTER - 1, CENTER] = (left + 1) / 2, (above + 1) / 2
            path = recorded(network, Neuron(last(network), 0), slope, image) * 2 - 1
            draw_path(axes, path[:, 0, CENTER, CENTER - 1], path[:, 0, CENTER - 1, CENTER])
        axes.set(title="plain" if slope == 0 else f"ProxyGrad, slope {slope:g}", xlabel="pixel to the left")
    canvas.axes[0].set_ylabel("pixel above")
    canvas.colorbar(filled, ax=canvas.axes, label="activation")


def recorded(network: Network, objective: Objective, slope: float, image: Tensor) -> Tensor:
    """The images of an ascent, ``(steps, 1, 11, 11)``."""
    rule = Recorder()
    maximize(network, objective, slope=slope, start=image, update=rule, preset="max", progress=False)
    return torch.stack(rule.images)


def draw_path(axes: Axes, across: Tensor, up: Tensor) -> None:
    axes.plot(across, up, color="white", linewidth=1.5)
    axes.plot(across[0], up[0], "o", color="white", markersize=4)
    axes.plot(across[-1], up[-1], "*", color="red", markersize=10)


def draw_images(toy: Toy, best: Any, canvas: Canvas) -> None:
    canvas.set_size_inches(9, 2.2)
    shown: list[tuple[str, Tensor, float | None]] = [("start", start(1.0), None)]
    for slope in (0.0, 0.1, 0.5, 1.0):
        found = climb(toy, slope, 1.0)
        shown.append((f"slope {slope:g}", found.image, found.activation))
    shown.append(("optimum", torch.from_numpy(best).float()[None] / 2 + 0.5, toy.optimum))
    for axes, (name, image, value) in zip(canvas.subplots(1, len(shown)), shown, strict=True):
        axes.imshow(image[0] * 2 - 1, cmap="gray", vmin=-1, vmax=1)
        axes.set_title(name if value is None else f"{name}\n{value:.2f}", fontsize=10)
        axes.set_axis_off()


def draw_plane(toy: Toy, canvas: Canvas) -> None:
    canvas.set_size_inches(6, 4.6)
    image = torch.rand(1, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(0))
    plain, proxy = (recorded(toy.network, toy.objective, slope, image) for slope in (0.0, SLOPE))
    origin = plain[0]
    first = proxy[-1] - origin
    second = plain[-1] - origin
    second = second - first * (second * first).sum() / first.square().sum()
    first, second = first / first.norm(), second / second.norm()
    width, height = float((proxy[-1] - origin).norm()), float(((plain[-1] - origin) * second).sum())
    across = torch.linspace(-0.2 * width, 1.2 * width, 60)
    up = torch.linspace(-0.5 * height, 1.5 * height, 60)
    images = origin + across[None, :, None, None, None] * first + up[:, None, None, None, None] * second
    values = toy.network.activations(images.flatten(0, 1).clamp(0, 1), last(toy.network)).mean((1, 2, 3))
    axes = canvas.subplots()
    filled = axes.contourf(across, up, values.detach().view(60, 60), 20, cmap="viridis")
    for path in (plain, proxy):
        moved = path - origin
        draw_path(axes, (moved * first).sum((1, 2, 3)), (moved * second).sum((1, 2, 3)))
    axes.set(xlabel="towards ProxyGrad's image", ylabel="towards the image of plain ascent")
    canvas.colorbar(filled, label="activation")


def draw_slopes(
    best: float,
    sweep: dict[tuple[Proxy, float], list[Visualization]],
    random: dict[tuple[Proxy, float], list[float]],
    canvas: Canvas,
) -> None:
    canvas.set_size_inches(7, 4)
    axes = canvas.subplots()
    slopes = sorted({slope for _, slope in sweep})
    for proxy, style in zip(PROXIES, ("-", "--"), strict=True):
        for number, name in enumerate(("zeros", "bright center", "dark center")):
            values = [sweep[proxy, slope][number].activation / best for slope in slopes]
            axes.plot(slopes, values, style, color=f"C{number}", label=f"{name}, {proxy}")
        medians = [median(random[proxy, slope]) / best for slope in slopes]
        axes.plot(slopes, medians, style, color="black", label=f"random, {proxy}")
    axes.set(xlabel="slope", ylabel="share of the optimum", ylim=(0, 1.02))
    axes.legend(fontsize=8)


def draw_notch(canvas: Canvas) -> None:
    canvas.set_size_inches(9, 3.4)
    left, right = canvas.subplots(1, 2)
    x = torch.linspace(-1, 1, 201)
    left.plot(x, Notch()(x))
    left.plot([0.1], [0.1], "o", color="black")
    left.set(title="relu(x) - 3 relu(x - 1/2)", xlabel="x", ylabel="activation")
    slopes = [step / 20 for step in range(21)]
    for proxy, style in zip(PROXIES, ("-", "--"), strict=True):
        right.plot(slopes, [notch(slope, 0.1, proxy) for slope in slopes], style, label=proxy)
    right.set(title="reached from x = 0.1", xlabel="slope", ylim=(0, 0.55))
    right.legend()


STAGE = ToyFunctions()
