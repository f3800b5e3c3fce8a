"""Makes the pictures of the documentation: ``python tools/figures.py`` from the project's root.

``docs/images/logits.png`` shows the ten logits of the bundled network: plain activation maximization above,
ProxyGrad below, each with the activation that its PNG truly achieves. With ``--models models.toml``, and a
``squeezenet`` trained on ImageNet in that file, it draws two others instead: ``docs/images/squeezenet.png``,
channels of SqueezeNet 1.0 by both methods, and ``docs/images/presets.png``, channels and logits of it under
each preset.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from PIL import Image, ImageDraw

from proxygrad import Catalog, Engine, Network, Rendering, Spec
from proxygrad.spec.settings import Preset, slope_text

IMAGES = Path(__file__).resolve().parents[1] / "docs/images"
TILE_PX, COLOR_TILE_PX = 84, 128
GAP_PX = 6
CAPTION_PX = 16
LABEL_PX = 92
INK, PAPER = (30, 30, 30), (255, 255, 255)


#: Textures, objects, and the logits zebra, flamingo and daisy.
PRESET_UNITS = [("features.7", 33), ("features.7", 90), ("features.12", 20), ("features.12", 300)]
PRESET_UNITS += [("output", 340), ("output", 130), ("output", 985)]

#: Of every eighth channel of SqueezeNet's last layer before the classifier, the first eight that plain
#: activation maximization leaves at 0 with these settings; of all 64 it leaves 11 (2026-11-30).
SILENT_CHANNELS = (0, 32, 56, 88, 176, 200, 208, 288)


def row(engine: Engine, network: Network, questions: Sequence[Spec]) -> list[Rendering]:
    """One rendering a question, the lanes of one layer as one batch."""
    tickets = [engine.submit(network, question) for question in questions]
    return [ticket.result() for ticket in tickets]


def sheet(rows: Sequence[tuple[str, Sequence[Rendering]]], tile_px: int = TILE_PX) -> Image.Image:
    """Rows of tiles with the achieved activation below each and the row's name before it."""
    step, height = tile_px + GAP_PX, tile_px + CAPTION_PX + GAP_PX
    size = (LABEL_PX + step * len(rows[0][1]), height * len(rows))
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    for down, (name, renderings) in enumerate(rows):
        draw.multiline_text((4, down * height + tile_px // 3), name, INK, font_size=12)
        for across, rendering in enumerate(renderings):
            left, top = LABEL_PX + across * step, down * height
            tile = Image.open(io.BytesIO(rendering.png)).resize((tile_px, tile_px), Image.Resampling.BICUBIC)
            picture.paste(tile.convert("RGB"), (left, top))
            caption = f"{rendering.result.achieved_activation:.4g}"
            draw.text((left + tile_px / 2, top + tile_px + 2), caption, INK, font_size=12, anchor="ma")
    return picture


def by_both_methods(engine: Engine, network: Network, specs: Sequence[Spec]) -> Image.Image:
    """Plain activation maximization above ProxyGrad, from the same starts."""
    plain = row(engine, network, [each.model_copy(update={"slope": 0.0}) for each in specs])
    proxy = row(engine, network, specs)
    slope = f"ProxyGrad\nslope {slope_text(proxy[0].result.spec.slope)}"
    tile_px = TILE_PX if network.input_shape[0] == 1 else COLOR_TILE_PX
    return sheet([("plain\nactivation\nmaximization", plain), (slope, proxy)], tile_px)


def draw_logits(engine: Engine) -> None:
    """The logits of the bundled network."""
    network = Catalog.from_file().load("digits")
    specs = [Spec(model="digits", layer="fc", unit=unit) for unit in range(10)]
    by_both_methods(engine, network, specs).save(IMAGES / "logits.png", optimize=True)


def draw_squeezenet(engine: Engine, network: Network) -> None:
    """Channels that plain activation maximization leaves at 0."""
    specs = [Spec(model="squeezenet", layer="features.12", unit=unit) for unit in SILENT_CHANNELS]
    by_both_methods(engine, network, specs).save(IMAGES / "squeezenet.png", optimize=True)


def draw_presets(engine: Engine, network: Network) -> None:
    """Each preset on the same units."""
    rows = []
    for preset in get_args(Preset):
        asked = {"model": "squeezenet", "preset": preset, "size_px": 112}
        questions = [
            Spec.model_validate({**asked, "layer": layer, "unit": unit}) for layer, unit in PRESET_UNITS
        ]
        rows.append((preset, row(engine, network, questions)))
    sheet(rows, COLOR_TILE_PX).save(IMAGES / "presets.png", optimize=True)


def main() -> None:
    """Render and write the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path)
    models = parser.parse_args().models
    IMAGES.mkdir(exist_ok=True)
    with Engine(max_lanes=12) as engine:
        if models is None:
            draw_logits(engine)
        else:
            network = Catalog.from_file(models).load("squeezenet")
            draw_squeezenet(engine, network)
            draw_presets(engine, network)


if __name__ == "__main__":
    main()
