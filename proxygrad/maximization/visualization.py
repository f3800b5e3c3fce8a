"""The results of `proxygrad.maximize`: images and what was measured of them. Notebooks show them."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from proxygrad.errors import ProxyGradError
from proxygrad.images import PNG_CHANNELS, encode_png
from proxygrad.maximization.labels import label
from proxygrad.objectives.base import Objective
from proxygrad.precision import Arithmetic
from proxygrad.spec.results import StartResult
from proxygrad.spec.settings import AscentSettings

#: A notebook shows images at least this large, in pixels of the longer side: each pixel as a square.
SHOWN_PX = 128
#: Of a longer list, a notebook shows so many images.
SHOWN_IMAGES = 64


@dataclass(frozen=True, repr=False, eq=False)
class Visualization:
    """One image that maximizes an objective, and what was measured of it.

    ``image``: ``(C, H, W)`` float32 in [0, 1] on the CPU. ``activation``: the objective of that image, alone
    on the network itself in float32, without proxy or transforms. ``start_activation``: the same of the start
    image. ``curve``: the activation before each step and after the last one, as the steps saw it. ``stuck``:
    ascent got nowhere (`proxygrad.engine.rendering.is_stuck`). ``objective`` and ``settings`` are those used,
    with every default filled in; ``dtype`` is what the steps computed in; ``magnitude`` is the Fourier
    magnitude that was given, as used: float32, scaled to unit variance. ``starts``: those that were tried,
    the chosen one marked; empty with one start.
    """

    image: Tensor
    activation: float
    start_activation: float
    curve: tuple[float, ...]
    stuck: bool
    objective: Objective
    settings: AscentSettings
    dtype: Arithmetic
    magnitude: Tensor | None = None
    starts: tuple[StartResult, ...] = ()

    def save(self, path: str | Path) -> None:
        """Write the image as a PNG of 8 bits a channel, one pixel for each of the tensor.

        Raises `NetworkError` for images that have neither 1 nor 3 channels.
        """
        Path(path).write_bytes(encode_png(self.image))

    def plot(self) -> Any:
        """Draw the image and its curve with matplotlib, and return the two axes.

        Raises `ProxyGradError` where matplotlib is not installed.
        """
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ProxyGradError("plot() needs matplotlib: pip install matplotlib") from error
        _, axes = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
        shown = self.image.movedim(0, -1)  # (H, W, C)
        axes[0].imshow(shown.numpy(), cmap="gray", vmin=0, vmax=1)
        axes[0].set(title=label(self.objective), xticks=[], yticks=[])
        axes[1].plot(self.curve)
        rise = f"{self.start_activation:.4g} → {self.activation:.4g}"
        axes[1].set(xlabel="step", ylabel="activation", title=rise)
        return axes

    def __repr__(self) -> str:
        size = "x".join(map(str, self.image.shape))
        stuck = ", stuck" if self.stuck else ""
        return (
            f"Visualization({label(self.objective)!r}, activation {self.start_activation:.4g} → "
            f"{self.activation:.4g}{stuck}, {size})"
        )

    def _repr_png_(self) -> bytes | None:
        """For IPython: the image, enlarged where it is small; None for channels that a PNG has not."""
        if self.image.shape[0] not in PNG_CHANNELS:
            return None
        times = -(-SHOWN_PX // max(self.image.shape[1:]))
        return encode_png(self.image.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2))


class VisualizationList(list[Visualization]):
    """Visualizations in the order of their objectives; a notebook shows them as a grid."""

    def __repr__(self) -> str:
        lines = [f"  {each!r}," for each in self[:10]]
        lines += [f"  … and {len(self) - 10} more"] if len(self) > 10 else []
        return "\n".join(["[", *lines, "]"]) if self else "[]"

    def _repr_html_(self) -> str:
        """For IPython: the images side by side, each with its objective and activation."""
        figures = "".join(map(_figure, self[:SHOWN_IMAGES]))
        more = f"<p>… and {len(self) - SHOWN_IMAGES} more</p>" if len(self) > SHOWN_IMAGES else ""
        return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{figures}</div>{more}'


def _figure(each: Visualization) -> str:
    png = each._repr_png_()
    shown = html.escape(repr(each))
    if png is not None:
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        shown = f'<img src="{source}" title="{shown}" style="width:{SHOWN_PX}px;image-rendering:pixelated">'
    stuck = " (stuck)" if each.stuck else ""
    caption = f"{html.escape(label(each.objective))}<br>{each.activation:.4g}{stuck}"
    style = "margin:0;text-align:center;font-size:small"
    return f'<figure style="{style}">{shown}<figcaption>{caption}</figcaption></figure>'
