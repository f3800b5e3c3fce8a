"""References: each kind, one or several for each input, and what is refused."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from proxygrad.attribution.attribute import attribute
from proxygrad.attribution.references import SHUFFLES, dataset_mean, references
from proxygrad.errors import InvalidRequest


def images(count: int = 3) -> Tensor:
    return torch.rand((count, 3, 12, 10), generator=torch.Generator().manual_seed(0))


def test_a_constant_is_one_reference_for_each_input() -> None:
    assert torch.equal(references("zeros", images()), torch.zeros(3, 1, 3, 12, 10))
    assert torch.equal(references(0.5, images()), torch.full((3, 1, 3, 12, 10), 0.5))


def test_the_mean_is_each_image_s_own_per_channel() -> None:
    found = references("mean", images())
    for n, image in enumerate(images()):
        for channel in range(3):
            torch.testing.assert_close(found[n, 0, channel], image[channel].mean().expand(12, 10))
    vectors = torch.tensor([[1.0, 2.0, 6.0]])
    assert torch.equal(references("mean", vectors), torch.full((1, 1, 3), 3.0))


def test_the_blur_is_a_gaussian_and_keeps_constants() -> None:
    point = torch.zeros(1, 1, 225, 225, dtype=torch.float64)
    point[0, 0, 112, 112] = 1
    found = references("blurred", point)[0, 0, 0]
    sigma = 10 / 224 * 225
    for dy, dx in ((0, 0), (3, 0), (5, -7), (20, 11)):
        expected = math.exp(-(dx * dx + dy * dy) / (2 * sigma**2)) / (2 * math.pi * sigma**2)
        assert found[112 + dy, 112 + dx].item() == pytest.approx(
            expected, rel=5e-3
        )  # it ends after 3 standard deviations
    assert torch.allclose(references("blurred", torch.full((2, 4, 30), 0.3)), torch.tensor(0.3))
    assert references("blurred", torch.rand(1, 1, 2, 2)).shape == (1, 1, 1, 2, 2)  # smaller than the kernel


def test_permutations_move_all_channels_of_a_position_together() -> None:
    given = images()
    found = references("shuffled", given, 2, seed=1)
    assert found.shape == (3, 2, 3, 12, 10)
    for image, own in zip(given, found, strict=True):
        columns = {tuple(each) for each in image.flatten(1).T.tolist()}
        for shuffled in own:
            assert {tuple(each) for each in shuffled.flatten(1).T.tolist()} == columns
            assert not torch.equal(shuffled, image)
    assert torch.equal(found[1:], references("shuffled", given[1:], 2, seed=1))
    assert not torch.equal(found, references("shuffled", given, 2, seed=2))
    vector = references("shuffled", torch.arange(6.0).unsqueeze(0), 4)
    assert torch.equal(vector.sort(dim=-1).values, torch.arange(6.0).expand(1, 4, 6))


def test_shuffled_sequences_are_twenty_unless_said_otherwise() -> None:
    sequence = torch.eye(4)[:, torch.tensor([0, 1, 2, 3, 1, 0, 0, 2, 1, 3])].unsqueeze(0)
    found = references("dinucleotide_shuffled", sequence)
    assert found.shape == (1, SHUFFLES, 4, 10)
    assert torch.equal(found.sum(dim=2), torch.ones(1, SHUFFLES, 10))


@pytest.mark.parametrize(
    ("shape", "several"), [((3, 12, 10), 1), ((1, 3, 12, 10), 1), ((2, 3, 12, 10), 1), ((2, 4, 3, 12, 10), 4)]
)
def test_a_tensor_is_for_all_inputs_or_has_its_own_for_each(shape: tuple[int, ...], several: int) -> None:
    given = torch.rand(shape, dtype=torch.float64)
    found = references(given, images(2))
    assert found.shape == (2, several, 3, 12, 10)
    assert found.dtype == torch.float32
    last = given.float() if len(shape) == 3 else given.float()[-1]
    assert torch.equal(found[1], last if len(shape) == 5 else last.unsqueeze(0))


def test_a_function_makes_references_of_the_inputs() -> None:
    assert torch.equal(references(lambda x: x / 2, images())[:, 0], images() / 2)


def test_the_mean_of_a_data_set_is_one_input() -> None:
    given = images(5)
    found = dataset_mean(given.split(2))
    torch.testing.assert_close(found, given.mean(dim=0))
    assert found.dtype == torch.float32
    assert references(found, given).shape == (5, 1, 3, 12, 10)
    with pytest.raises(InvalidRequest, match="no inputs"):
        dataset_mean([])
    with pytest.raises(InvalidRequest, match=r"shapes \(3, 12, 10\) and \(3, 2, 2\)"):
        dataset_mean([given, torch.zeros(1, 3, 2, 2)])


@pytest.mark.parametrize(
    ("reference", "arguments", "message"),
    [
        ("zero", {}, "unknown reference 'zero'; did you mean 'zeros'?"),
        ("noise", {}, "unknown reference 'noise'; valid: zeros, mean, blurred, shuffled"),
        (
            torch.zeros(3, 10, 12),
            {},
            "reference of shape (3, 10, 12) for inputs of shape (2, 3, 12, 10); valid",
        ),
        (
            torch.zeros(3, 3, 12, 10),
            {},
            "reference of shape (3, 3, 12, 10) for inputs of shape (2, 3, 12, 10)",
        ),
        ("dinucleotide_shuffled", {}, "inputs of shape (2, 3, 12, 10) are no one-hot sequences"),
        ("zeros", {"count": 4}, "references=4 does not fit: the reference gives 1 for each input"),
        ("shuffled", {"count": 0}, "references=0: at least one is needed"),
        (float("nan"), {}, "not finite"),
        (
            None,
            {},
            "reference of type NoneType; valid: a number, a tensor, a function of the inputs, one of",
        ),
        (True, {}, "reference of type bool"),
        ([], {}, "the list of references is empty; valid: one or more"),
        (["zeros", "nothing"], {}, "unknown reference 'nothing'"),
        (["zeros", ["mean"]], {}, "reference of type list"),
        (["zeros", 1.0], {"count": 2}, "references=2 applies to shuffles, and the list names none"),
    ],
)
def test_what_is_no_reference_is_refused(reference: Any, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        references(reference, images(2), **arguments)


def test_references_of_whole_numbers_are_whole() -> None:
    tokens = torch.tensor([[4, 7, 1, 7]])
    assert torch.equal(references("zeros", tokens), torch.zeros(1, 1, 4, dtype=torch.int64))
    assert torch.equal(references(2, tokens), torch.full((1, 1, 4), 2))
    assert torch.equal(references("shuffled", tokens, 3).sort(dim=2).values[0, 2], torch.tensor([1, 4, 7, 7]))
    assert torch.equal(references(torch.tensor([1.0, 2, 3, 4]), tokens)[0, 0], torch.tensor([1, 2, 3, 4]))
    for wrong in ("mean", 0.5, torch.tensor([0.5, 1, 1, 1])):
        with pytest.raises(InvalidRequest, match="does not apply to inputs of whole numbers"):
            references(wrong, tokens)


def test_a_blur_needs_rows_and_columns_or_a_length() -> None:
    with pytest.raises(InvalidRequest, match="'blurred' does not apply to inputs of shape"):
        references("blurred", torch.zeros(2, 5))


def test_a_reference_may_lie_in_memory_in_another_order_than_the_input() -> None:
    network = nn.Sequential(nn.Conv1d(4, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1))
    drawn = torch.rand((2, 6, 4), generator=torch.Generator().manual_seed(0)).movedim(2, 1)
    found = attribute(network, drawn, "output:0", reference=torch.zeros(2, 4, 6))
    same = attribute(network, drawn.contiguous(), "output:0", reference="zeros")
    assert torch.equal(found.contributions, same.contributions)


def test_a_list_is_one_after_the_other() -> None:
    given = images(2)
    own = torch.rand(2, 2, *given.shape[1:])
    found = references(["zeros", own, 0.25, "shuffled"], given, 3, seed=1)
    expected = [references(each, given) for each in ("zeros", own, 0.25)]
    assert torch.equal(found, torch.cat([*expected, references("shuffled", given, 3, seed=1)], dim=1))
