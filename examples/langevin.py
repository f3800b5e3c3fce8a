"""Langevin samples: images that excite a logit, and that a discriminator takes for real ones.

    python examples/langevin.py

Writes ``langevin.png``, a row for each chain, and ``langevin.webp``, the first chain as an animation.
"""

from __future__ import annotations

from pathlib import Path

import proxygrad as pg


def main(folder: Path = Path(), chains: int = 4, samples: int = 6) -> None:
    found = pg.sample(
        pg.load("digits"),
        "fc:3",
        chains=chains,
        samples=samples,
        beta=3000,
        discriminator_weight=100,
        slope=0.05,  # ProxyGrad leads the chains to where the unit is active …
        slope_end=0,
        slope_end_at=0.4,  # … and from 40 % of the steps on, within the burn-in, gradients are exact
    )
    print(found)
    size = found.diagnostics.effective_sample_size
    print(f"{size:.1f} effective samples of {chains} x {found.diagnostics.draws} states" if size else "")
    found.grid().save(folder / "langevin.png")
    found.animation(folder / "langevin.webp")


if __name__ == "__main__":
    main()
