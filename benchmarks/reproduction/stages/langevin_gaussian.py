"""LDAM: do chains sample the density that they should? Normal targets, of which everything is known.

Every pair of neighboring pixels of a row is a copy of one two-dimensional target, so a single image holds 200
independent draws of it. The chains are those of `proxygrad.sample`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.reproduction.stage import Claim, Context, Figure, Paper, Report, Table, Verdict
from proxygrad import Network, SampleSet, sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

SIDE_PX = 20
CHAINS, SAMPLES, BURN_IN, THINNING = 4, 14, 200, 50
#: Of the target, before the pull toward gray is added.
PRECISION = torch.tensor([[20.0, 8.0], [8.0, 10.0]], dtype=torch.float64)
MEAN = torch.tensor([0.4, 0.7], dtype=torch.float64)
PULL = 2.0
STEP_SIZE = 0.01
STEP_SIZES = (0.08, 0.04, 0.02, 0.01)
#: How many standard errors are a difference.
SIGMAS = 3.0


class Quadratic(nn.Module):
    """``-½ (x-μ)ᵀ P (x-μ)``, summed over all pairs: ``(B, 1, H, W)`` → ``(B, 1)``."""

    def forward(self, x: Tensor) -> Tensor:
        away = x.reshape(len(x), -1, 2) - MEAN.to(x)  # (B, pairs, 2)
        return -0.5 * (away @ PRECISION.to(x) * away).sum(dim=(1, 2)).unsqueeze(1)


@dataclass(frozen=True)
class Normal:
    """A two-dimensional normal distribution: ``mean`` ``(2,)``, ``covariance`` ``(2, 2)``."""

    mean: Tensor
    covariance: Tensor

    def errors(self, draws: Tensor) -> tuple[float, float]:
        """The largest difference of mean and of covariance of ``(N, 2)`` draws, in standard errors."""
        count, diagonal = len(draws), self.covariance.diagonal()
        of_mean = (draws.mean(dim=0) - self.mean).abs() / (diagonal / count).sqrt()
        spread = ((self.covariance.square() + diagonal.outer(diagonal)) / count).sqrt()
        of_covariance = (draws.T.cov() - self.covariance).abs() / spread
        return float(of_mean.max()), float(of_covariance.max())


def target(step_size: float, temperature: float = 1.0) -> Normal:
    """What chains of that step sample; at step size 0 the target itself.

    The discretized chain of a normal target of precision P has the covariance ``T (P - ε P² / 4)⁻¹``.
    """
    precision = PRECISION + PULL * torch.eye(2, dtype=torch.float64)
    mean = torch.linalg.solve(precision, PRECISION @ MEAN + PULL * torch.full((2,), 0.5, dtype=torch.float64))
    return Normal(mean, temperature * torch.linalg.inv(precision - step_size / 4 * precision @ precision))


def draws(**settings: Any) -> tuple[SampleSet, Tensor]:
    """Chains on the target, and the pairs of all of their samples, ``(N, 2)``."""
    network = Network(Quadratic(), input_shape=(1, SIDE_PX, SIDE_PX))
    given = {"chains": CHAINS, "samples": SAMPLES, "burn_in": BURN_IN, "thinning": THINNING}
    beta = {} if "variant" in settings else {"beta": 1.0}
    found = sample(network, "output:0", progress=False, **{**given, **beta, **settings})
    if not isinstance(found, SampleSet):
        raise TypeError("one objective gives one set")
    return found, found.images.double().reshape(-1, 2)


@dataclass(frozen=True)
class _Stage:
    name: str = "langevin_gaussian"
    title: str = "Langevin chains on a normal target"
    paper: Paper = "LDAM"
    needs_shared: bool = False

    def run(self, context: Context) -> Report:
        exact = {"bounds": "none", "pull": PULL}
        step_sizes = STEP_SIZES[1::2] if context.quick else STEP_SIZES
        found: dict[float, tuple[SampleSet, Tensor]] = {}
        for number, step_size in enumerate(step_sizes):
            context.progress(number, len(step_sizes) + 3, f"ε = {step_size:g}")
            found[step_size] = draws(step_size=step_size, **exact)
        warm = draws(step_size=STEP_SIZE, temperature=0.25, seed=100, **exact)[1]
        authors = draws(variant="authors", discriminator_weight=0.0, pull=PULL, seed=200)[1]
        own = found[STEP_SIZE][1]
        claims = (
            _noise(),
            _sampled("At temperature 1", target(STEP_SIZE), own),
            _sampled("At temperature 0.25", target(STEP_SIZE, 0.25), warm),
            _bias({step_size: pairs for step_size, (_, pairs) in found.items()}),
            _authors(authors),
        )
        rows = tuple(_row(step_size, *each) for step_size, each in found.items())
        columns = ("ε", "mean, errors", "covariance, errors", "covariance over that of ε = 0", "ESS", "R-hat")
        return Report(
            claims,
            (Table(f"{CHAINS} chains of {SAMPLES} samples, 200 pairs each", columns, rows),),
            (Figure("samples", "Pairs of pixels, and ellipses of the target", _drawing(own, authors)),),
            note="Differences are in standard errors of as many independent draws; samples are "
            f"{THINNING} steps apart. ESS and R-hat are of the activation at each step after the burn-in.",
        )


def _verdict(holds: bool) -> Verdict:
    return "holds" if holds else "does not hold"


def _noise() -> Claim:
    """One step from gray without any drift is the noise alone."""
    only_noise = {"beta": 0.0, "pull": 1e-9, "bounds": "none", "start_noise": 0.0}
    ratios = []
    for seed, (step_size, temperature) in enumerate(((1e-3, 1.0), (1e-2, 4.0))):
        moved = draws(
            **only_noise,
            step_size=step_size,
            temperature=temperature,
            chains=16,
            samples=1,
            burn_in=0,
            thinning=1,
            seed=300 * seed,
        )[1]
        ratios.append(float((moved - 0.5).square().mean()) / (step_size * temperature))
    furthest = max(abs(ratio - 1) for ratio in ratios)
    allowed = SIGMAS * math.sqrt(2 / (16 * SIDE_PX**2))
    return Claim(
        "LDAM",
        "The noise of a step has the variance ε T.",
        f"ratio {', '.join(f'{ratio:.3f}' for ratio in ratios)}; three standard errors are {allowed:.3f}",
        _verdict(furthest < allowed),
    )


def _sampled(when: str, expected: Normal, pairs: Tensor) -> Claim:
    of_mean, of_covariance = expected.errors(pairs)
    return Claim(
        "LDAM",
        f"{when} chains have the mean and the covariance of their density, within three standard errors.",
        f"mean {of_mean:.1f}, covariance {of_covariance:.1f} standard errors",
        _verdict(max(of_mean, of_covariance) < SIGMAS),
    )


def _bias(found: dict[float, Tensor]) -> Claim:
    """Each step size against its own theory, which tends to the target."""
    errors = [target(step_size).errors(pairs)[1] for step_size, pairs in found.items()]
    biases = [float((target(each).covariance / target(0.0).covariance).max()) for each in found]
    return Claim(
        "LDAM",
        "The bias of a finite step is that of theory, and vanishes with ε.",
        f"covariance {max(errors):.1f} standard errors from theory at most; theory is "
        f"{max(biases):.3f} to {min(biases):.3f} times the target's",
        _verdict(max(errors) < SIGMAS),
    )


def _authors(pairs: Tensor) -> Claim:
    spread = float((pairs.var(dim=0) / target(0.0).covariance.diagonal()).max())
    return Claim(
        "LDAM",
        "The dynamics of the authors' code, whose noise decays, sample that density too.",
        f"variance {spread:.2g} times the target's",
        _verdict(target(0.0).errors(pairs)[1] < SIGMAS),
    )


def _row(step_size: float, found: SampleSet, pairs: Tensor) -> tuple[str, ...]:
    of_mean, of_covariance = target(step_size).errors(pairs)
    ratio = float((pairs.T.cov() / target(0.0).covariance).diagonal().mean())
    size, r_hat = found.diagnostics.effective_sample_size, found.diagnostics.r_hat
    told = ["unknown" if value is None else f"{value:.4g}" for value in (size, r_hat)]
    return (f"{step_size:g}", f"{of_mean:.1f}", f"{of_covariance:.1f}", f"{ratio:.3f}", *told)


def _drawing(own: Tensor, authors: Tensor) -> Any:
    """Both clouds, with ellipses of one and two standard deviations."""

    def draw(canvas: Canvas) -> None:
        canvas.set_size_inches(8, 4)
        values, vectors = torch.linalg.eigh(target(0.0).covariance)
        angle = torch.linspace(0, 2 * math.pi, 200, dtype=torch.float64)
        circle = torch.stack([angle.cos(), angle.sin()])
        for number, (name, pairs) in enumerate((("sgld", own), ("authors", authors)), start=1):
            axes = canvas.add_subplot(1, 2, number)
            first, second = pairs[:2000].T.tolist()
            axes.scatter(first, second, s=2, alpha=0.4)
            for deviations in (1, 2):
                ring = target(0.0).mean[:, None] + deviations * vectors @ (values.sqrt()[:, None] * circle)
                axes.plot(*ring.tolist(), color="black", linewidth=1)
            axes.set(
                title=name, xlabel="first pixel", ylabel="second pixel", xlim=(-0.6, 1.4), ylim=(-0.6, 1.8)
            )

    return draw


STAGE = _Stage()
