"""A direction between units: what do two digits look like together, and one without the other?

    python examples/direction.py

Writes ``direction.png``: the logits 3 and 8 of the bundled network alone, their sum, and each less the other.
"""

from __future__ import annotations

from pathlib import Path

from proxygrad import Catalog, Direction, Logit, maximize, tile


def main(output: Path = Path("direction.png"), steps: int = 128) -> None:
    network = Catalog.from_file().load("digits")
    both = tuple(1.0 if unit in (3, 8) else 0.0 for unit in range(10))
    objectives = {
        "3": Logit("fc", 3),
        "8": Logit("fc", 8),
        "3 and 8": Direction("fc", both),
        "3, not 8": Logit("fc", 3) - 0.5 * Logit("fc", 8),
        "8, not 3": Logit("fc", 8) - 0.5 * Logit("fc", 3),
    }
    outcomes = maximize(network, list(objectives.values()), steps=steps)
    for name, outcome in zip(objectives, outcomes, strict=True):
        print(f"{name:<10} {outcome.achieved_activation:8.2f}")
    tile([outcome.image for outcome in outcomes]).save(output)


if __name__ == "__main__":
    main()
