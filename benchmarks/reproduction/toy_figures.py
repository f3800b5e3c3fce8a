"""The figures of the stage `toy_functions`."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.reproduction.toys import PROXIES, SLOPE, Notch, Toy, climb, last, notch, recorded
from examples.toy_functions import CENTER, SIZE_PX, network_of, one_stage, start
from proxygrad import Neuron, Visualization
from proxygrad.spec.settings import Proxy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


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
