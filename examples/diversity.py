"""One unit, several answers: four images of the same channel, alone and led away from each other.

    python examples/diversity.py

Writes ``diversity.png``: without diversity above, with it below.
"""

from __future__ import annotations

from pathlib import Path

from proxygrad import Catalog, Channel, maximize, tile


def main(output: Path = Path("diversity.png"), steps: int = 128) -> None:
    network = Catalog.from_file().load("digits")
    images = []
    for diversity in (0.0, 0.5):
        outcomes = maximize(network, Channel("layer2", 9), images=4, diversity=diversity, steps=steps)
        activations = ", ".join(f"{outcome.achieved_activation:.2f}" for outcome in outcomes)
        print(f"diversity {diversity:g}: {activations}")
        images += [outcome.image for outcome in outcomes]
    tile(images, columns=4).save(output)


if __name__ == "__main__":
    main()
