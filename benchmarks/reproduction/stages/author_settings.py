"""The settings of the ProxyGrad authors' earlier public code (Linse 2023) beside ours, at equal compute."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks import trained_networks
from benchmarks.asking import ratios
from benchmarks.reproduction.stage import Claim, Context, Paper, Report, Table, Verdict
from proxygrad import Channel, Network, TopQuarter, VisualizationList, maximize

#: Slope 1.0 for the first fifth of the steps, then linearly to 0.01 at 30 %, then constant.
SCHEDULE = {"slope": 1.0, "slope_end": 0.01, "slope_hold": 0.2, "slope_end_at": 0.3}
#: A step of L2 length 20 at 3 x 224 x 224 values, as a root mean square per value.
AUTHORS_STEP = 20 / (3 * 224 * 224) ** 0.5
#: Each changes one thing of preset `max`, the last all of them.
VARIANTS: dict[str, dict[str, Any]] = {
    "ours": {},
    "slope schedule": SCHEDULE,
    "whitened gradient": {"update": "whitened"},
    "blur 0.5": {"blur_px": 0.5},
    f"step {AUTHORS_STEP:.3f}": {"step_size": AUTHORS_STEP},
    "all": {**SCHEDULE, "update": "whitened", "blur_px": 0.5, "step_size": AUTHORS_STEP, "proxy": "network"},
}
#: A quick run has too few units for the others, which are close.
CLEAR = ("whitened gradient", "all")
CLAIMED = {
    "slope schedule": "With the authors' slope schedule (1, then down to 0.01)",
    "whitened gradient": "With the whitened gradient",
    "all": "With all of the authors' settings (schedule, reading `network`, whitened, blur, step)",
}
NOT_HERE: Verdict = "cannot be tested here"


def climb(network: Network, objectives: list[Any], steps: int, settings: dict[str, Any]) -> VisualizationList:
    plain = {"preset": "max", "slope": 0.05, "starts": 1, "gaf": "none", "progress": False}
    return maximize(network, objectives, steps=steps, **{**plain, **settings})


def verdict(holds: bool) -> Verdict:
    return "holds" if holds else "does not hold"


def measure(
    network: Network, layers: tuple[str, ...], units: int, steps: int
) -> dict[str, list[VisualizationList]]:
    """For each variant, and for `top_quarter` with our settings, the images of each layer's first units."""
    found = {
        name: [
            climb(network, [Channel(layer, unit) for unit in range(units)], steps, settings)
            for layer in layers
        ]
        for name, settings in VARIANTS.items()
    }
    quarter = [
        climb(network, [TopQuarter(layer, unit) for unit in range(units)], steps, {}) for layer in layers
    ]
    return {**found, "top_quarter": quarter}


def ratio(found: list[VisualizationList], base: list[VisualizationList]) -> float:
    """The median ratio over all layers' units that ``base`` moved."""
    return median(each for ours, theirs in zip(found, base, strict=True) for each in ratios(ours, theirs))


def quarters(network: Network, images: list[VisualizationList], layers: tuple[str, ...]) -> list[float]:
    """The mean of the highest quarter of each image's channel."""
    return [
        float(TopQuarter(layer, unit)({layer: network.activations(each.image[None], layer)}).item())
        for layer, own in zip(layers, images, strict=True)
        for unit, each in enumerate(own)
    ]


def claims_of(
    name: str,
    network: Network | None,
    layers: tuple[str, ...],
    found: dict[str, list[VisualizationList]],
    quick: bool,
) -> list[Claim]:
    claims = []
    for variant, text in CLAIMED.items():
        if quick and variant not in CLEAR:
            continue
        value = ratio(found[variant], found["ours"]) if network else 0.0
        claims.append(
            Claim(
                "ProxyGrad",
                f"{name}: {text} images end at least as high as ours, to 1 % in the median.",
                f"ratio {value:.3f}" if network else "its weights are not there",
                verdict(value >= 0.99) if network else NOT_HERE,
            )
        )
    if quick:
        return claims
    value = 0.0
    if network:
        pairs = zip(
            quarters(network, found["top_quarter"], layers),
            quarters(network, found["ours"], layers),
            strict=True,
        )
        value = median(own / other for own, other in pairs if other > 0)
    claims.append(
        Claim(
            "ProxyGrad",
            f"{name}: maximizing the highest quarter of a channel's positions raises it further than "
            "maximizing the channel's mean does, by 5 % in the median.",
            f"ratio {value:.3f}" if network else "its weights are not there",
            verdict(value >= 1.05) if network else NOT_HERE,
        )
    )
    return claims


class AuthorSettings:
    """The stage."""

    name = "author_settings"
    title = "The authors' earlier settings beside ours"
    paper: Paper = "ProxyGrad"
    needs_shared = False

    def run(self, context: Context) -> Report:
        """Measure on both networks, where they are."""
        claims, rows = list[Claim](), list[tuple[str, ...]]()
        steps = 24 if context.quick else 64
        layers = {
            "digits": ("layer2",) if context.quick else ("layer2", "layer3"),
            "SqueezeNet": ("features.7",) if context.quick else ("features.7", "features.12"),
        }
        for number, (name, own) in enumerate(layers.items()):
            context.progress(number, len(layers), name)
            network = self._network(name, context)
            found = measure(network, own, 16 if name == "digits" else 8, steps) if network else {}
            claims += claims_of(name, network, own, found, context.quick)
            for variant in VARIANTS if found else ():
                images = [each for layer in found[variant] for each in layer]
                stuck = sum(each.stuck for each in images)
                shown = f"{ratio(found[variant], found['ours']):.3f}"
                rows.append((name, variant, str(len(images)), str(stuck), shown))
        table = Table(
            f"Achieved activation of channels, {steps} steps each, seed 0",
            ("network", "settings", "units", "stuck", "ratio to ours, median"),
            tuple(rows),
        )
        return Report(
            tuple(claims),
            (table,),
            note="These are comparisons with the authors' code, not claims of the paper. Ours is preset "
            "`max`: slope 0.05 throughout, reading `surrogate`, first step 0.2. The step falls linearly to 0 "
            "on either side, and no view is moved; the authors' own step length is constant, in 200 steps.",
        )

    @staticmethod
    def _network(name: str, context: Context) -> Network | None:
        if name == "digits":
            return trained_networks.digits()
        return trained_networks.squeezenet(context.shared) if context.shared else None


STAGE = AuthorSettings()
