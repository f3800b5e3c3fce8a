"""LDAM: what the discriminator gives and what it costs, and how different samples are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from benchmarks.reproduction.chains import SLOPE, chains, each_class
from benchmarks.reproduction.handwriting import (
    CLASSES,
    Handwriting,
    accuracy,
    digits,
    distance_to_real,
    mnist,
    nearest,
)
from benchmarks.reproduction.stage import Claim, Context, Figure, Paper, Report, Table
from proxygrad import grid, maximize
from proxygrad.langevin.discriminator import Discriminator
from proxygrad.spec.models import OUTPUT
from proxygrad.training.discriminator import DiscriminatorRecipe, train_discriminator

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

WEIGHTS = (0.0, 0.5, 0.6, 0.7, 0.8)
#: The weight that the claims are about.
USED = 0.6
#: Of the real images of a class; samples fall into some of them.
CLUSTERS = 10
DIVERSITY = 0.5
SEED = 5

NOTE = """
Digits: the bundled network with its discriminator. MNIST: two convolutions, trained on one half of the
10,000 test images, with the authors' discriminator (three million parameters, AdaGrad at 1e-4, 300 steps).
The judge is another network with other layers and another seed; for MNIST it learned from the other half of
the images. Samples are the last states of chains of 100 steps, ten a class, from uniform noise, by variant
`authors` of the sampler, step size 0.2; a weight w mixes logit and log D, 1 - w to w. *Distance* is that to
the nearest real image of the class among those the network learned from, in features of the judge, in units
of the same distance of real images that it has not seen: 1 is as close as real ones. Clusters: k-means of the
real images of a class into 10, in the same features; the last row has as many real images.
"""


@dataclass(frozen=True)
class Measured:
    """Samples at one weight; means of logit and judge's confidence, and the distance to real images."""

    weight: float
    samples: Tensor
    activation: float
    confidence: float
    right: float
    distance: float

    @property
    def row(self) -> tuple[str, ...]:
        """For the table."""
        shares = (f"{self.confidence:.3f}", f"{self.right:.2f}")
        return f"{self.weight:g}", f"{self.activation:.2f}", *shares, f"{self.distance:.2f}"


@dataclass(frozen=True)
class Variety:
    """How different the images of a class are, as a mean over classes.

    ``distance``: root mean square difference of a pixel, of all pairs; ``clusters``: how many they fall into.
    """

    name: str
    images: Tensor
    distance: float
    clusters: float
    activation: float
    confidence: float

    @property
    def row(self) -> tuple[str, ...]:
        """For the table."""
        numbers = (f"{self.distance:.3f}", f"{self.clusters:.1f}", f"{self.activation:.2f}")
        return self.name, *numbers, f"{self.confidence:.3f}"


@dataclass(frozen=True)
class LangevinTradeoff:
    """Chains with a growing weight of the discriminator, judged by another classifier."""

    name: str = "langevin_tradeoff"
    title: str = "A discriminator between activation and likeness"
    paper: Paper = "LDAM"
    needs_shared: bool = True

    def run(self, context: Context) -> Report:
        """Both data sets; quick: digits alone, with few and short chains."""
        assert context.shared is not None
        count, steps = (4, 40) if context.quick else (10, 100)
        context.progress(0, 10, "digits: judge")
        data = digits()
        assert data.network.discriminator is not None
        studies = [Study(data, data.network.discriminator, count, steps)]
        context.progress(1, 10, "digits: chains")
        reports = [studies[0].report()]
        if not context.quick:
            context.progress(3, 10, "MNIST: networks")
            other = mnist(context.shared)
            recipe = DiscriminatorRecipe(steps=300)
            training = train_discriminator(
                other.network, other.images, 0, recipe, progress=partial(_tell, context)
            )
            context.progress(7, 10, "MNIST: chains")
            reports.append(Study(other, training.discriminator, count, steps).report())
        claims, tables, figures = (
            sum((getattr(each, part) for each in reports), ()) for part in ("claims", "tables", "figures")
        )
        return Report(claims, tables, figures, NOTE)


@dataclass(frozen=True)
class Study:
    """One data set: ``count`` chains a class, of ``steps`` steps."""

    data: Handwriting
    discriminator: Discriminator
    count: int
    steps: int

    def report(self) -> Report:
        """Claims, tables and figures of this data set."""
        measured = [self.measure(weight) for weight in WEIGHTS]
        variety = self.varieties(measured)
        name = self.data.name
        judge = accuracy(self.data.judge, self.data.others, self.data.other_labels)
        if name != "digits":
            judge = accuracy(self.data.judge, self.data.images, self.data.labels)
        return Report(
            claims=(
                self.likeness_claim(measured),
                self.confidence_claim(measured),
                self.variety_claim(variety),
            ),
            tables=(
                Table(
                    f"{name}: samples by weight (the judge's accuracy on images new to it: {judge:.3f})",
                    ("weight", "logit", "judge's confidence", "taken for the class", "distance"),
                    tuple(each.row for each in measured),
                ),
                Table(
                    f"{name}: {self.count} images a class",
                    ("images", "difference", f"clusters of {CLUSTERS}", "logit", "judge's confidence"),
                    tuple(each.row for each in variety),
                ),
            ),
            figures=(
                Figure(
                    f"{name.lower()}_samples",
                    f"{name}: two chains of each class; a row for each weight, 0 above",
                    partial(draw_samples, measured, self.count),
                ),
                Figure(
                    f"{name.lower()}_tradeoff",
                    f"{name}: judge's confidence and distance against the logit; numbers are weights",
                    partial(draw_tradeoff, measured),
                ),
            ),
        )

    def measure(self, weight: float) -> Measured:
        """Samples with this weight."""
        labels = each_class(self.count)
        samples = chains(self.data.network, labels, self.discriminator, weight, seed=SEED, steps=self.steps)
        confidence = self.data.judge.confidence(samples, labels)
        return Measured(
            weight,
            samples,
            self.logit(samples),
            float(confidence.mean()),
            accuracy(self.data.judge, samples, labels),
            distance_to_real(self.data, samples, labels),
        )

    @torch.no_grad()
    def logit(self, images: Tensor) -> float:
        """The mean logit of the images' own classes, ``count`` of each in order."""
        labels = each_class(self.count)
        logits = self.data.network.activations(images, OUTPUT)
        return float(logits[torch.arange(len(labels)), labels].mean())

    def varieties(self, measured: list[Measured]) -> list[Variety]:
        """Of chains with and without discriminator, of plain and of diverse ascent, and of real images."""
        used = next(each for each in measured if each.weight == USED)
        chosen = [
            (self.data.other_labels == label).nonzero().flatten()[: self.count] for label in range(CLASSES)
        ]
        found = {
            "chains, weight 0": measured[0].samples,
            f"chains, weight {USED:g}": used.samples,
            f"`images={self.count}`": self.optima(0),
            f"`images={self.count}, diversity={DIVERSITY:g}`": self.optima(DIVERSITY),
            "real": self.data.others[torch.cat(chosen)],
        }
        return [self.variety(name, images) for name, images in found.items()]

    def optima(self, diversity: float) -> Tensor:
        """Images that ascent from as many starts ends in, with ProxyGrad's slope."""
        objectives = [f"{OUTPUT}:{label}" for label in range(CLASSES)]
        found = maximize(
            self.data.network,
            objectives,
            images=self.count,
            diversity=diversity,
            slope=SLOPE,
            preset="max",
            starts=1,
            gaf="none",
            steps=self.steps,
            progress=False,
        )
        return torch.stack([each.image for each in found])

    def variety(self, name: str, images: Tensor) -> Variety:
        """``images``: ``count`` of each class in order."""
        labels = each_class(self.count)
        pixels = images[0].numel()
        pairs = [torch.pdist(images[labels == label].flatten(1)) / pixels**0.5 for label in range(CLASSES)]
        clusters = [len(set(self.cluster(images[labels == label], label))) for label in range(CLASSES)]
        return Variety(
            name,
            images,
            float(torch.cat(pairs).mean()),
            sum(clusters) / CLASSES,
            self.logit(images),
            float(self.data.judge.confidence(images, labels).mean()),
        )

    def cluster(self, images: Tensor, label: int) -> list[int]:
        """The number of the cluster of real images of the class that each image is nearest to."""
        real = self.data.judge.features(self.data.images[self.data.labels == label])
        means = KMeans(CLUSTERS, n_init=1, random_state=0).fit(real.numpy()).cluster_centers_
        return nearest(self.data.judge.features(images), torch.from_numpy(means).float())[1].tolist()

    def likeness_claim(self, measured: list[Measured]) -> Claim:
        """Whether activation is traded for likeness."""
        without, used = measured[0], next(each for each in measured if each.weight == USED)
        traded = used.activation < without.activation and used.distance < 0.8 * without.distance
        return Claim(
            "LDAM",
            f"A discriminator trades activation for likeness: at weight {USED:g} the logit is lower than "
            f"without, and samples are closer to real images by a fifth or more ({self.data.name}).",
            f"logit {without.activation:.2f} → {used.activation:.2f}, distance {without.distance:.2f} → "
            f"{used.distance:.2f} (1: as close as real images)",
            "holds" if traded else "does not hold",
        )

    def confidence_claim(self, measured: list[Measured]) -> Claim:
        """Whether another classifier agrees more."""
        without, used = measured[0], next(each for each in measured if each.weight == USED)
        return Claim(
            "LDAM",
            f"A second, independently trained classifier is surer of the class at weight {USED:g} than "
            f"without, by .01 or more ({self.data.name}).",
            f"confidence {without.confidence:.3f} → {used.confidence:.3f}",
            "holds" if used.confidence >= without.confidence + 0.01 else "does not hold",
        )

    def variety_claim(self, variety: list[Variety]) -> Claim:
        """Whether chains are more various than optima."""
        used, plain = variety[1], variety[2]
        more = used.clusters > plain.clusters and used.distance > plain.distance
        return Claim(
            "LDAM",
            "Langevin samples of a class differ more than the optima that as many random starts end in, pixel"
            f" by pixel and in the clusters of real images that they fall into ({self.data.name}).",
            f"difference {plain.distance:.3f} → {used.distance:.3f}, clusters {plain.clusters:.1f} → "
            f"{used.clusters:.1f} of {CLUSTERS}",
            "holds" if more else "does not hold",
        )


def draw_samples(measured: list[Measured], count: int, canvas: Canvas) -> None:
    """A row for each weight, two chains of each class."""
    columns = torch.arange(CLASSES).repeat_interleave(2) * count + torch.tensor([0, 1]).repeat(CLASSES)
    canvas.set_size_inches(8, 2.2)
    axes = canvas.subplots()
    axes.imshow(grid([image for each in measured for image in each.samples[columns]], columns=2 * CLASSES))
    axes.axis("off")


def draw_tradeoff(measured: list[Measured], canvas: Canvas) -> None:
    """Confidence and distance against the logit."""
    canvas.set_size_inches(7, 3)
    for axes, part, label in zip(
        canvas.subplots(1, 2),
        ("confidence", "distance"),
        ("judge's confidence", "distance (1: real)"),
        strict=True,
    ):
        axes.plot([each.activation for each in measured], [getattr(each, part) for each in measured], "o-")
        for each in measured:
            axes.annotate(
                f"{each.weight:g}", (each.activation, getattr(each, part)), (4, 4), textcoords="offset points"
            )
        axes.set(xlabel="logit", ylabel=label)
        axes.grid(alpha=0.3)


def _tell(context: Context, step: int, measured: object) -> None:
    context.progress(40 + step // 10, 100, "MNIST: discriminator")


STAGE = LangevinTradeoff()
