"""Which rule for which layer? Rescale, RevealCancel and `auto` on the DeepLIFT authors' two networks.

For MNIST, beyond the two pairs of digits that are published: for each pair of digits (o, t) the first
images of o are erased as in `benchmarks.deeplift_mnist`. For sequences, each task: how well scores find
the motifs of the sequences that have what the task asks for. Needs the shared folder with ``truth`` and
``data``.

    python -m benchmarks.attribution_rules --images 50

A row for each rule: the median falls of two pairs; over all 90 pairs the mean share of the best rule's median
fall, and in how many the rule is best, or above Rescale; average precision; seconds.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from benchmarks import deeplift_genomics as genomics
from benchmarks import deeplift_mnist as mnist
from benchmarks.reproduction.__main__ import shared_folder
from proxygrad.attribution.attribute import attribute
from proxygrad.attribution.choice import RuleName

RULES: tuple[RuleName, ...] = ("gradient", "rescale", "revealcancel", "auto")


def digit_pairs(rule: RuleName, network: torch.nn.Module, digits: mnist.Digits, count: int) -> np.ndarray:
    """The median fall for each pair, ``(10, 10)``, NaN on the diagonal."""
    found = np.full((10, 10), np.nan)
    for digit in range(10):
        images = digits.of(digit).images[:count]
        scores = torch.stack(
            [attribute(network, images, f"output:{to}", rule=rule).contributions for to in range(10)]
        )
        for target in set(range(10)) - {digit}:
            difference = scores[digit] - scores[target]
            found[digit, target] = np.median(mnist.falls(network, images, digit, target, difference).numpy())
    return found


def motif_precision(rule: RuleName, network: torch.nn.Module, sequences: genomics.Sequences) -> list[float]:
    """The average precision of each task's scores, over the sequences with that label."""
    found = []
    for task in range(3):
        which = sequences.labels[:, task] == 1
        scores = attribute(
            network, sequences.inputs[which], f"output:{task}", reference=genomics.reference(), rule=rule
        ).contributions.sum(dim=1)
        found.append(genomics.average_precision(scores, sequences.embedded[which]))
    return found


def main() -> None:
    """Measure and print a row for each rule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50, help="of each digit")
    count = parser.parse_args().images
    torch.set_num_threads(1)
    shared = shared_folder()
    if shared is None:
        raise SystemExit("the shared folder is not beside the checkout, nor where PROXYGRAD_SHARED says")
    network, digits = mnist.mnist_network(shared), mnist.mnist_test_set(shared)
    sequence_network, sequences = genomics.genomics_network(shared), genomics.genomics_test_set(shared)
    falls, precision, seconds = {}, {}, {}
    for rule in RULES:
        started = time.monotonic()
        falls[rule] = digit_pairs(rule, network, digits, count)
        precision[rule] = motif_precision(rule, sequence_network, sequences)
        seconds[rule] = time.monotonic() - started
    best = np.stack(list(falls.values())).max(axis=0)  # NaN where no pair is
    print("rule | 8→3 | 8→6 | share of the best fall | best | above rescale | precision, tasks 0 1 2 | s")
    for rule in RULES:
        own = falls[rule]
        wins = int((own == best).sum())
        above = int((own > falls["rescale"]).sum())
        share = float(np.nanmean(own / best))
        tasks = " ".join(f"{each:.3f}" for each in precision[rule])
        published = f"{own[8, 3]:.0f} | {own[8, 6]:.0f}"
        print(f"{rule} | {published} | {share:.3f} | {wins} | {above} | {tasks} | {seconds[rule]:.0f}")


if __name__ == "__main__":
    main()
