"""The curves of a discriminator's training, as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from proxygrad.errors import ModelError
from proxygrad.training.discriminator import DiscriminatorTraining


def draw_training(training: DiscriminatorTraining, path: Path) -> None:
    """Loss, shares of images told, and activation over the steps, smoothed; a picture at ``path``.

    Raises `ModelError` when it cannot be written.
    """
    from matplotlib.figure import Figure

    history = training.history
    figure = Figure(figsize=(7, 7), layout="constrained")
    loss, told, activation = figure.subplots(3, sharex=True)
    loss.plot(smoothed([step.loss for step in history]), color="black")
    loss.axhline(math.log(2), linestyle=":", color="gray")
    loss.annotate("a coin", (len(history) - 1, math.log(2)), ha="right", va="bottom", color="gray")
    loss.set(ylabel="binary cross-entropy", title=f"Discriminator: {training.outcome}", ylim=(0, None))
    told.plot(smoothed([step.real for step in history]), label="real images")
    told.plot(smoothed([step.generated for step in history]), label="generated images")
    told.set(ylabel="share told", ylim=(0, 1.02))
    told.legend(loc="lower right")
    activation.plot(smoothed([step.activation for step in history]), color="tab:green")
    activation.set(ylabel="activation of the chains", xlabel="step")
    for axes in (loss, told, activation):
        axes.grid(alpha=0.3)
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise ModelError(f"the curves cannot be written to {path}: {error}") from error


def smoothed(values: Sequence[float], share: float = 0.02) -> list[float]:
    """An exponential average over about ``share`` of all values, without the bias of its start."""
    decay = 1 - 1 / max(1.0, share * len(values))
    average, weight, smooth = 0.0, 0.0, []
    for value in values:
        average, weight = decay * average + (1 - decay) * value, decay * weight + (1 - decay)
        smooth.append(average / weight)
    return smooth
