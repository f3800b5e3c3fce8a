"""Why activation maximization fails: three functions of 11x11 pixels, and one of a single pixel.

docs/why-activation-maximization-fails.md explains what this stage measures and shows its pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

from benchmarks.reproduction.stage import Claim, Context, Figure, Paper, Report, Table, Verdict
from benchmarks.reproduction.toy_figures import (
    draw_images,
    draw_landscape,
    draw_notch,
    draw_plane,
    draw_slopes,
)
from benchmarks.reproduction.toys import (
    PROXIES,
    RANDOM_STARTS,
    SLOPE,
    Toy,
    climb,
    climb_at_random,
    notch,
    toys,
)
from benchmarks.two_stages import coefficients, optimum
from examples.toy_functions import network_of, two_stages
from proxygrad import Visualization
from proxygrad.spec.settings import Proxy

SLOPES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
QUICK_SLOPES = (0.0, 0.1, 1.0)
#: Value of the center pixel; all others are 0.
CENTERS = (0.0, 1.0, -1.0)
#: At the optimum: to 1 %, which the shrinking last steps and float32 leave.
REACHED = 0.99
#: Of a Leaky ReLU as it is usually trained, the default of `torch.nn.LeakyReLU`.
LEAKY_SLOPE = 0.01


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


STAGE = ToyFunctions()
