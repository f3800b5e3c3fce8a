"""A direction between units: what do two digits look like together, and one without the other?

    python examples/direction.py

Writes ``direction.png``: the logits 3 and 8 of the bundled network alone, their sum, and each less the other.
"""

from __future__ import annotations

from pathlib import Path

import proxygrad as pg


def main(output: Path = Path("direction.png"), steps: int = 128) -> None:
    network = pg.load("digits")
    three, eight = pg.Logit("fc", 3), pg.Logit("fc", 8)
    both = tuple(1.0 if unit in (3, 8) else 0.0 for unit in range(10))
    objectives = {
        "3": three,
        "8": eight,
        "3 and 8": pg.Direction("fc", both),
        "3, not 8": three - eight / 2,
        "8, not 3": eight - three / 2,
    }
    images = pg.maximize(network, list(objectives.values()), steps=steps)
    for name, image in zip(objectives, images, strict=True):
        print(f"{name:<10} {image.activation:8.2f}")
    pg.grid(images).save(output)


if __name__ == "__main__":
    main()
