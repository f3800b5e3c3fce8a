"""Makes the pictures of the documentation: ``python docs/figures.py`` from the project's root.

``images/neurons.png`` shows centre neurons of the bundled network's last stage, ``images/logits.png`` its ten
logits: plain activation maximization above and ProxyGrad below, each with the activation that its PNG truly
achieves.
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw

from proxygrad import Catalogue, Engine, Rendering, Spec

IMAGES = Path(__file__).parent / "images"
TILE_PX = 84
GAP_PX = 6
CAPTION_PX = 16
LABEL_PX = 92
INK, PAPER = (30, 30, 30), (255, 255, 255)


def row(engine: Engine, question: Spec, units: range) -> list[Rendering]:
    """One rendering a unit, all lanes of one batch."""
    network = Catalogue.from_file(None).load(question.model)
    tickets = [engine.submit(network, question.model_copy(update={"unit": unit})) for unit in units]
    return [ticket.result() for ticket in tickets]


def sheet(rows: list[tuple[str, list[Rendering]]]) -> Image.Image:
    """Rows of tiles with the achieved activation below each and the row's name before it."""
    step, height = TILE_PX + GAP_PX, TILE_PX + CAPTION_PX + GAP_PX
    size = (LABEL_PX + step * len(rows[0][1]), height * len(rows))
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    for down, (name, renderings) in enumerate(rows):
        draw.multiline_text((4, down * height + TILE_PX // 3), name, INK, font_size=12)
        for across, rendering in enumerate(renderings):
            left, top = LABEL_PX + across * step, down * height
            tile = Image.open(io.BytesIO(rendering.png)).resize((TILE_PX, TILE_PX), Image.Resampling.BICUBIC)
            picture.paste(tile.convert("RGB"), (left, top))
            caption = f"{rendering.result.achieved_activation:.1f}"
            draw.text((left + TILE_PX / 2, top + TILE_PX + 2), caption, INK, font_size=12, anchor="ma")
    return picture


def main() -> None:
    """Render and write all pictures."""
    IMAGES.mkdir(exist_ok=True)
    neurons = Spec(model="digits", layer="layer3", unit=0, objective="neuron")
    logits = Spec(model="digits", layer="fc", unit=0)
    with Engine(max_lanes=12) as engine:
        for name, question, units in (("neurons", neurons, range(12)), ("logits", logits, range(10))):
            plain = row(engine, question.model_copy(update={"slope": 0.0}), units)
            proxy = row(engine, question, units)
            rows = [
                ("plain\nactivation\nmaximization", plain),
                (f"ProxyGrad\nslope {question.slope:g}", proxy),
            ]
            sheet(rows).save(IMAGES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
