"""One-hot sequences ``(N, letters, L)``: shuffles as references, and contributions of letters not there."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from proxygrad.errors import InvalidRequest


def check_one_hot(inputs: Tensor) -> None:
    """Raises `InvalidRequest` unless ``inputs`` is ``(N, letters, L)``, one 1 at each position and else 0."""
    if inputs.ndim != 3:
        raise InvalidRequest(
            f"inputs of shape {tuple(inputs.shape)} are no one-hot sequences, whose shape is (N, letters, L)"
        )
    wrong = ((inputs != 0) & (inputs != 1)).any(dim=1) | (inputs.sum(dim=1) != 1)  # (N, L)
    if bool(wrong.any()):
        sequence, position = wrong.nonzero()[0].tolist()
        column = inputs[sequence, :, position].tolist()
        raise InvalidRequest(
            f"inputs are not one-hot: sequence {sequence} has {column} at position {position}; "
            "valid: one 1 at each position, and 0 elsewhere"
        )


def dinucleotide_shuffles(inputs: Tensor, count: int, seed: int) -> Tensor:
    """``count`` shuffles of each one-hot sequence ``(N, letters, L)`` → ``(N, count, letters, L)``.

    Each has exactly as many of every pair of neighboring letters, and the same first and last letter. All of
    these sequences are equally likely: a shuffle is a random Eulerian path through the pairs (Altschul and
    Erickson, "Significance of nucleotide sequence alignments", Mol. Biol. Evol. 2(6), 1985). The shuffles of
    a sequence depend on it and ``seed`` alone, not on the rest of the batch. Raises `InvalidRequest` for
    inputs that are not one-hot.
    """
    check_one_hot(inputs)
    letters = inputs.argmax(dim=1).cpu().numpy()  # (N, L)
    shuffled = np.stack([_shuffles_of(each, count, seed) for each in letters])  # (N, count, L)
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(shuffled), inputs.shape[1])
    return one_hot.movedim(-1, 2).to(inputs)


def _shuffles_of(sequence: np.ndarray, count: int, seed: int) -> np.ndarray:
    """``(L,)`` → ``(count, L)``, letters as numbers."""
    generator = np.random.default_rng(seed)
    followers = {int(each): sequence[1:][sequence[:-1] == each] for each in np.unique(sequence[:-1])}
    return np.stack([_eulerian_path(sequence, followers, generator) for _ in range(count)])


def _eulerian_path(
    sequence: np.ndarray, followers: dict[int, np.ndarray], generator: np.random.Generator
) -> np.ndarray:
    last = _last_followers(followers, int(sequence[-1]), generator)
    order = dict[int, list[int]]()
    for letter, after in followers.items():
        left = np.delete(after, last[letter]) if letter in last else after
        # popped from the end: the last follower comes first
        order[letter] = [*after[[last[letter]] if letter in last else []], *generator.permutation(left)]
    path = [int(sequence[0])]
    for _ in range(len(sequence) - 1):
        path.append(int(order[path[-1]].pop()))
    return np.array(path)


def _last_followers(
    followers: dict[int, np.ndarray], end: int, generator: np.random.Generator
) -> dict[int, int]:
    """By letter, which of its followers is taken last: a random tree of pairs that leads to ``end``, all
    equally likely (Wilson, "Generating random spanning trees more quickly than the cover time", STOC 1996).
    """
    tree = dict[int, int]()
    for start in followers:
        trial, letter = dict[int, int](), start
        while letter != end and letter not in tree:
            trial[letter] = int(generator.integers(len(followers[letter])))
            letter = int(followers[letter][trial[letter]])
        letter = start
        while letter != end and letter not in tree:  # the walk without its loops
            tree[letter] = trial[letter]
            letter = int(followers[letter][trial[letter]])
    return tree


def hypothetical_contributions(inputs: Tensor, multipliers: Tensor, contributions: Tensor) -> Tensor:
    """What each letter would contribute if it stood there, ``(N, letters, L)``.

    ``inputs``: one-hot, ``(N, letters, L)``; ``multipliers`` and ``contributions``: an attribution's, of the
    same shape. A letter in place of the reference changes every entry of its column, so it contributes
    ``Σ_c m_c (letter_c − reference_c)``, which is what the DeepLIFT authors compute for one-hot inputs and
    TF-MoDISco takes. For the letter that stands there it is the sum of the column's contributions.
    Attributions averaged over several references give the average. Raises `InvalidRequest`
    for inputs that are not one-hot, or shapes that differ.
    """
    check_one_hot(inputs)
    for name, given in (("multipliers", multipliers), ("contributions", contributions)):
        if given.shape != inputs.shape:
            raise InvalidRequest(f"{name} of shape {tuple(given.shape)} for inputs of {tuple(inputs.shape)}")
    there = contributions.sum(dim=1, keepdim=True)  # Σ m (x − reference)
    return multipliers + there - (multipliers * inputs).sum(dim=1, keepdim=True)
