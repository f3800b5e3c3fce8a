"""Contributions of letters that are not there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from proxygrad.attribution.result import Attribution, Delta
from proxygrad.errors import InvalidRequest


def sequences(count: int, length: int) -> Tensor:
    drawn = torch.randint(4, (count, length), generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.one_hot(drawn, 4).movedim(2, 1).double()


def attribution(inputs: Tensor) -> Attribution:
    """Made up, with two references of each input that have multipliers of their own."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(inputs), 2, *inputs.shape[1:])
    references = torch.rand(shape, generator=generator, dtype=torch.float64)
    multipliers = torch.randn(shape, generator=generator, dtype=torch.float64)
    each = multipliers * (inputs.unsqueeze(1) - references)
    zeros = torch.zeros(len(inputs), dtype=torch.float64)
    return Attribution(
        each.mean(dim=1),
        multipliers.mean(dim=1),
        zeros,
        zeros,
        Delta(zeros, zeros),
        references=references,
        each_multipliers=multipliers,
    )


def test_they_are_those_of_each_letter_in_place_of_the_reference() -> None:
    """Restated slowly, and averaged over the references."""
    inputs = sequences(2, 5)
    found = attribution(inputs)
    expected = torch.zeros_like(inputs)
    for n in range(2):
        for letter in range(4):
            for position in range(5):
                for k in range(2):
                    for c in range(4):
                        there = 1.0 if c == letter else 0.0
                        difference = there - found.references[n, k, c, position]
                        multiplier = found.each_multipliers[n, k, c, position]
                        expected[n, letter, position] += multiplier * difference / 2
    hypothetical = found.hypothetical(inputs)
    torch.testing.assert_close(hypothetical, expected, rtol=1e-12, atol=1e-12)
    standing = (hypothetical * inputs).sum(dim=1)
    torch.testing.assert_close(standing, found.contributions.sum(dim=1), rtol=1e-12, atol=1e-12)


def test_other_inputs_are_refused() -> None:
    found = attribution(sequences(2, 5))
    with pytest.raises(InvalidRequest, match=r"inputs of shape \(2, 4, 6\) for contributions"):
        found.hypothetical(sequences(2, 6))
    with pytest.raises(InvalidRequest, match="not one-hot"):
        found.hypothetical(torch.full((2, 4, 5), 0.25))
