"""Diverse images of one unit: four of the same channel, alone and led away from each other.

    python examples/diversity.py

Writes ``diversity.png``: without diversity above, with it below.
"""

from __future__ import annotations

from pathlib import Path

import proxygrad as pg


def main(output: Path = Path("diversity.png"), steps: int = 128) -> None:
    network = pg.load("digits")
    rows: list[pg.Visualization] = []
    for diversity in (0.0, 0.5):
        images = pg.maximize(network, "layer2:9", images=4, diversity=diversity, steps=steps)
        activations = ", ".join(f"{image.activation:.2f}" for image in images)
        print(f"diversity {diversity:g}: {activations}")
        rows += images
    pg.grid(rows, columns=4).save(output)


if __name__ == "__main__":
    main()
