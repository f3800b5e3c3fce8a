"""Makes the pictures of the documentation: ``python tools/figures.py`` from the project's root.

``docs/images/neurons.png`` shows center neurons of the bundled network's last stage,
``docs/images/logits.png`` its ten logits: plain activation maximization above and ProxyGrad below, each with
the activation that its PNG truly achieves. ``python tools/figures.py --models models.toml``, with a
``squeezenet`` trained on ImageNet in that file, draws ``docs/images/presets.png`` instead: channels and
logits of SqueezeNet 1.0 under each preset.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from PIL import Image, ImageDraw

from proxygrad import Catalog, Engine, Network, Rendering, Spec
from proxygrad.spec.settings import Preset

IMAGES = Path(__file__).resolve().parents[1] / "docs/images"
TILE_PX = 84
GAP_PX = 6
CAPTION_PX = 16
LABEL_PX = 92
INK, PAPER = (30, 30, 30), (255, 255, 255)


#: Textures, objects, and the logits zebra, flamingo and daisy.
PRESET_UNITS = [("features.7", 33), ("features.7", 90), ("features.12", 20), ("features.12", 300)]
PRESET_UNITS += [("output", 340), ("output", 130), ("output", 985)]


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


def draw_methods(engine: Engine) -> None:
    """Plain activation maximization above ProxyGrad, on the bundled network."""
    network = Catalog.from_file().load("digits")
    neurons = [Spec(model="digits", layer="layer3", unit=unit, objective="neuron") for unit in range(12)]
    logits = [Spec(model="digits", layer="fc", unit=unit) for unit in range(10)]
    for name, questions in (("neurons", neurons), ("logits", logits)):
        plain = row(engine, network, [each.model_copy(update={"slope": 0.0}) for each in questions])
        proxy = row(engine, network, questions)
        slope = f"ProxyGrad\nslope {questions[0].slope:g}"
        sheet([("plain\nactivation\nmaximization", plain), (slope, proxy)]).save(
            IMAGES / f"{name}.png", optimize=True
        )


def draw_presets(engine: Engine, models: Path) -> None:
    """Each preset on the same units."""
    network = Catalog.from_file(models).load("squeezenet")
    rows = []
    for preset in get_args(Preset):
        asked = {"model": "squeezenet", "preset": preset, "size_px": 112}
        questions = [
            Spec.model_validate({**asked, "layer": layer, "unit": unit}) for layer, unit in PRESET_UNITS
        ]
        rows.append((preset, row(engine, network, questions)))
    sheet(rows, tile_px=128).save(IMAGES / "presets.png", optimize=True)


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
            draw_methods(engine)
        else:
            draw_presets(engine, models)


if __name__ == "__main__":
    main()
