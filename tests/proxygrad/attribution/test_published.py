"""The DeepLIFT authors' own networks: what they published, met exactly (`benchmarks.deeplift_mnist`, …)."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import deeplift_genomics as genomics
from benchmarks import deeplift_mnist as mnist
from benchmarks.deeplift_genomics import Sequences
from benchmarks.deeplift_mnist import Digits
from proxygrad.attribution.attribute import attribute
from proxygrad.attribution.choice import RuleName

ROWS = sorted(mnist.FELL_MOST)
#: Columns of the genomics table that take less than a second each.
QUICK = ("gradient × input", "guided backprop × input", list(genomics.COLUMNS)[-1])


@pytest.fixture(scope="module")
def digits(shared_truth: Path) -> Digits:
    return mnist.mnist_test_set(shared_truth)


@pytest.fixture(scope="module")
def network(shared_truth: Path) -> nn.Sequential:
    return mnist.mnist_network(shared_truth)


@pytest.fixture(scope="module")
def sequences(shared_truth: Path) -> Sequences:
    return genomics.genomics_test_set(shared_truth)


@pytest.fixture(scope="module")
def genomics_network(shared_truth: Path) -> nn.Sequential:
    return genomics.genomics_network(shared_truth)


@pytest.fixture(scope="module")
def eights(digits: Digits) -> Digits:
    """The test images that the published lists name, and thirty other 8s."""
    named = sorted(set(chain.from_iterable(mnist.FELL_MOST.values())))
    others = [each for each in digits.of(8).numbers.tolist() if each not in named][::31]
    return digits.at(torch.tensor(named + others[:30]))


def fall(network: nn.Module, digits: Digits, column: str, target: int) -> torch.Tensor:
    difference = mnist.scores(network, digits.images, 8, column)
    difference = difference - mnist.scores(network, digits.images, target, column)
    return mnist.falls(network, digits.images, 8, target, difference)


def test_the_network_for_mnist_is_right_on_9921_of_10000(network: nn.Module, digits: Digits) -> None:
    with torch.no_grad():
        assert int((network(digits.images).argmax(dim=1) == digits.labels).sum()) == 9921


@pytest.mark.parametrize(("column", "target"), ROWS)
def test_the_images_that_fall_most_among_others(
    network: nn.Module, eights: Digits, column: str, target: int
) -> None:
    found = fall(network, eights, column, target)
    assert mnist.fell_most(found, eights.numbers) == mnist.FELL_MOST[column, target]


@pytest.mark.soak
@pytest.mark.parametrize("target", [3, 6])
@pytest.mark.parametrize("column", mnist.COLUMNS)
def test_the_whole_experiment(network: nn.Module, digits: Digits, column: str, target: int) -> None:
    found = fall(network, digits.of(8), column, target)
    published = mnist.MEDIANS[target][list(mnist.COLUMNS).index(column)]
    assert float(np.median(found.numpy())) == pytest.approx(published, rel=0.005)
    if (column, target) in mnist.FELL_MOST:
        assert mnist.fell_most(found, digits.of(8).numbers) == mnist.FELL_MOST[column, target]


@pytest.mark.parametrize("rule", ["rescale", "revealcancel", "auto"])
def test_contributions_sum_to_differences_of_thousands(
    network: nn.Module, digits: Digits, rule: RuleName
) -> None:
    """Published: within 2e-3 of differences up to 9155, which are those of the first 100 images' own logits.

    In float32 a number of that size is known to 1e-3, and sums of hundreds of them to a little less.
    """
    images, labels = digits.images[:100], digits.labels[:100]
    objectives = [f"output:{label}" for label in labels.tolist()]
    found = attribute(network, images, objectives, rule=rule)
    difference = (found.value - found.reference_value).double()
    assert float(difference.abs().max()) == pytest.approx(9155, abs=1)
    assert float((found.delta.absolute / difference).abs().max()) < 1e-6
    exact = attribute(network, images, objectives, rule=rule, dtype=torch.float64)
    assert float(exact.delta.absolute.abs().max()) < 1e-9


def test_the_network_for_genomics_tells_the_motifs(genomics_network: nn.Module, sequences: Sequences) -> None:
    assert genomics.auroc(genomics_network, sequences) == pytest.approx(genomics.AUROC, abs=0.001)


@pytest.mark.parametrize(
    "column",
    [
        column if column in QUICK else pytest.param(column, marks=pytest.mark.soak)
        for column in genomics.COLUMNS
    ],
)
def test_the_average_precision_of_motif_positions(
    genomics_network: nn.Module, sequences: Sequences, column: str
) -> None:
    both = sequences.with_both_motifs()
    assert len(both.inputs) == 236
    found = genomics.scores(genomics_network, both.inputs, column)
    published = genomics.PRECISION[list(genomics.COLUMNS).index(column)]
    assert genomics.average_precision(found, both.embedded) == pytest.approx(published, abs=0.005)


def test_auto_finds_motifs_better_than_either_rule_alone(
    genomics_network: nn.Module, sequences: Sequences
) -> None:
    few = sequences.with_both_motifs().first(40)
    rules: tuple[RuleName, ...] = ("auto", "rescale", "revealcancel")
    precision = {}
    for rule in rules:
        found = attribute(genomics_network, few.inputs, "output:0", reference=genomics.reference(), rule=rule)
        precision[rule] = genomics.average_precision(found.contributions.sum(dim=1), few.embedded)
    assert precision["auto"] > precision["rescale"] + 0.02 > precision["revealcancel"] + 0.1
