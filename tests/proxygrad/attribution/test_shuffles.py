"""Shuffles of one-hot sequences that keep the number of every pair of letters."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, permutations

import pytest
import torch
from torch import Tensor

from proxygrad.attribution.references import dinucleotide_shuffles
from proxygrad.errors import InvalidRequest


def one_hot(text: str, letters: str = "ACGT") -> Tensor:
    """``(letters, L)``"""
    return torch.tensor([[float(each == letter) for each in text] for letter in letters])


def text_of(sequence: Tensor, letters: str = "ACGT") -> str:
    return "".join(letters[int(each)] for each in sequence.argmax(dim=0))


def random_sequences(count: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randint(4, (count, length), generator=generator)
    return torch.nn.functional.one_hot(drawn, 4).movedim(2, 1).float()


def test_shuffles_keep_the_number_of_every_pair_and_both_ends() -> None:
    sequences = random_sequences(6, 60)
    shuffles = dinucleotide_shuffles(sequences, 5, seed=3)
    assert shuffles.shape == (6, 5, 4, 60)
    for sequence, own in zip(sequences, shuffles, strict=True):
        before = text_of(sequence)
        for shuffled in own:
            after = text_of(shuffled)
            assert torch.equal(one_hot(after), shuffled)
            assert Counter(pairwise(after)) == Counter(pairwise(before))
            assert (after[0], after[-1]) == (before[0], before[-1])
            assert after != before


@pytest.mark.parametrize("text", ["ACAGATACA", "AACCAGAC"])
def test_every_sequence_with_these_pairs_is_equally_likely(text: str) -> None:
    pairs = Counter(pairwise(text))
    possible = {
        text[0] + "".join(middle) + text[-1]
        for middle in permutations(text[1:-1])
        if Counter(pairwise(text[0] + "".join(middle) + text[-1])) == pairs
    }
    draws = 400 * len(possible)
    drawn = Counter(
        text_of(each) for each in dinucleotide_shuffles(one_hot(text).unsqueeze(0), draws, seed=0)[0]
    )
    assert set(drawn) == possible
    assert len(possible) > 3
    chi_squared = sum((drawn[each] - 400) ** 2 / 400 for each in possible)
    assert chi_squared < 3 * len(possible)  # its mean is the number of sequences minus one


def test_shuffles_depend_on_the_sequence_and_the_seed_alone() -> None:
    sequences = random_sequences(3, 30)
    together = dinucleotide_shuffles(sequences, 2, seed=7)
    assert torch.equal(together[2:], dinucleotide_shuffles(sequences[2:], 2, seed=7))
    assert not torch.equal(together, dinucleotide_shuffles(sequences, 2, seed=8))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(1, 4, 5), r"sequence 0 has \[0.0, 0.0, 0.0, 0.0\] at position 0"),
        (torch.full((1, 4, 5), 0.25), "are not one-hot"),
        (one_hot("ACGT").unsqueeze(0) + one_hot("AAGT").unsqueeze(0).roll(1, 0) * 1.0, "are not one-hot"),
        (torch.zeros(1, 3, 8, 8), r"shape \(1, 3, 8, 8\) are no one-hot sequences"),
    ],
)
def test_what_is_not_one_hot_is_refused(inputs: Tensor, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        dinucleotide_shuffles(inputs, 1, seed=0)
