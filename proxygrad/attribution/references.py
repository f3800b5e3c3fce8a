"""References: the inputs that an input is compared with.

A reference stands for "nothing to see". There is none that is right for all data: zeros for strokes on black,
a blurred copy for photographs, the letters' frequencies or shuffled sequences for DNA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from proxygrad.errors import InvalidRequest, near
from proxygrad.optim.regularizers import blur

ReferenceName = Literal["zeros", "mean", "blurred", "shuffled", "dinucleotide_shuffled"]
#: A name, a constant, the reference itself, or a function from inputs to it.
OneReference = ReferenceName | float | Tensor | Callable[[Tensor], Tensor]
#: One, or several to average over.
Reference = OneReference | Sequence[OneReference]

#: Several of each input, unless said otherwise: tangermeme's default.
SHUFFLES = 20
#: Its standard deviation as a part of the longest side: 10 px at 224 px (Fong and Vedaldi, arXiv 1704.03296).
BLUR = 10 / 224


def references(reference: Reference, inputs: Tensor, count: int | None = None, seed: int = 0) -> Tensor:
    """The references of each input, ``(N, k, *S)`` for ``inputs`` ``(N, *S)``, of their type and device.

    ``reference``:

    - ``"zeros"``, or any number.
    - ``"mean"``: each input's own mean over its positions, per channel (the first dimension of ``S``).
    - ``"blurred"``: each input under a Gaussian blur (`BLUR`); inputs are ``(C, H, W)`` or ``(C, L)``.
    - ``"shuffled"``: random permutations of each input's positions; channels stay together.
    - ``"dinucleotide_shuffled"``: of one-hot sequences ``(N, letters, L)``, see `dinucleotide_shuffles`.
    - a tensor of shape ``S`` or ``(1, *S)`` for all inputs, ``(N, *S)`` with one for each, or ``(N, k, *S)``.
    - a function from the inputs to such a tensor.
    - a list or tuple of these: all of them, one after the other.

    ``count``: how many of each input the shuffles make; `SHUFFLES` where it is None. Every other reference is
    one, or as many as its tensor holds. ``seed``: of the shuffles, which depend on it and the input alone.

    Raises `InvalidRequest` for an unknown name, a tensor of another shape, a count that does not fit, numbers
    that are not finite, or a kind that the inputs do not have.
    """
    if inputs.ndim < 2:
        raise InvalidRequest(f"inputs of shape {tuple(inputs.shape)} have no batch; valid: (N, …)")
    if not isinstance(reference, list | tuple):
        return _references(reference, inputs, count, seed)
    if not reference:
        raise InvalidRequest("the list of references is empty; valid: one or more")
    counts = [count if isinstance(each, str) and each.endswith("shuffled") else None for each in reference]
    if count is not None and counts == [None] * len(counts):
        raise InvalidRequest(f"references={count} applies to shuffles, and the list names none")
    pairs = zip(reference, counts, strict=True)
    return torch.cat([_references(each, inputs, number, seed) for each, number in pairs], dim=1)


def _references(reference: Any, inputs: Tensor, count: int | None, seed: int) -> Tensor:
    if callable(reference) and not isinstance(reference, Tensor):
        reference = reference(inputs)
    if not inputs.is_floating_point() and not _whole(reference):
        named = repr(reference) if isinstance(reference, str | float) else "with fractions"
        raise InvalidRequest(
            f"reference {named} does not apply to inputs of whole numbers ({inputs.dtype}); "
            "valid: whole numbers, 'zeros' or 'shuffled'"
        )
    if isinstance(reference, Tensor):
        found = _given(reference, inputs)
    elif isinstance(reference, str):
        found = _named(reference, inputs, count, seed)
    elif _is_number(reference):
        found = torch.full_like(inputs, reference).unsqueeze(1)
    else:
        raise InvalidRequest(
            f"reference of type {type(reference).__name__}; valid: a number, a tensor, a "
            f"function of the inputs, one of {', '.join(get_args(ReferenceName))}, or a list of these"
        )
    if count is not None and found.shape[1] != count:
        raise InvalidRequest(
            f"references={count} does not fit: the reference gives {found.shape[1]} for each input; "
            "'shuffled' and 'dinucleotide_shuffled' make as many as one wants"
        )
    if not bool(found.isfinite().all()):
        raise InvalidRequest("the reference holds numbers that are not finite")
    return found


def dataset_mean(batches: Iterable[Tensor]) -> Tensor:
    """The mean of a data set's inputs, ``S``, to be used as a reference; ``batches``: each ``(N, *S)``.

    Summed in float64, one batch at a time. Raises `InvalidRequest` without inputs, or where shapes differ.
    """
    total, number = torch.zeros(()), 0
    dtype = torch.get_default_dtype()
    for batch in batches:
        if number and batch.shape[1:] != total.shape:
            raise InvalidRequest(
                f"the data set has inputs of shapes {tuple(total.shape)} and {tuple(batch.shape[1:])}"
            )
        total = total.to(batch.device) + batch.sum(dim=0, dtype=torch.float64)
        number += len(batch)
        dtype = batch.dtype if batch.is_floating_point() else dtype
    if not number:
        raise InvalidRequest("the data set has no inputs, and so no mean")
    return (total / number).to(dtype)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(reference: object) -> bool:
    """Whether the reference of inputs of whole numbers is of such numbers."""
    if isinstance(reference, Tensor):
        return not reference.is_floating_point() or bool((reference == reference.round()).all())
    if isinstance(reference, str):
        return reference not in ("mean", "blurred")
    return not isinstance(reference, float) or reference.is_integer()


def _given(reference: Tensor, inputs: Tensor) -> Tensor:
    shape = inputs.shape[1:]
    given = reference.detach().to(inputs)
    if given.shape in (shape, (1, *shape)):
        return given.reshape(1, 1, *shape).expand(len(inputs), 1, *shape)
    if given.shape == inputs.shape:
        return given.unsqueeze(1)
    if given.ndim == inputs.ndim + 1 and given.shape[:1] + given.shape[2:] == inputs.shape and given.shape[1]:
        return given
    each = ", ".join(map(str, shape))
    raise InvalidRequest(
        f"reference of shape {tuple(reference.shape)} for inputs of shape {tuple(inputs.shape)}; "
        f"valid: ({each}), (1, {each}), ({len(inputs)}, {each}) or ({len(inputs)}, k, {each})"
    )


def _named(name: str, inputs: Tensor, count: int | None, seed: int) -> Tensor:
    if name not in get_args(ReferenceName):
        names = get_args(ReferenceName)
        close = near(name, names)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"valid: {', '.join(names)}"
        raise InvalidRequest(f"unknown reference {name!r}; {hint}")
    if name.endswith("shuffled"):
        number = SHUFFLES if count is None else count
        if number < 1:
            raise InvalidRequest(f"references={number}: at least one is needed")
        make = dinucleotide_shuffles if name == "dinucleotide_shuffled" else _permutations
        return make(inputs, number, seed)
    if name == "zeros":
        return torch.zeros_like(inputs).unsqueeze(1)
    return (_mean(inputs) if name == "mean" else _blurred(inputs)).unsqueeze(1)


def _mean(inputs: Tensor) -> Tensor:
    positions = tuple(range(2, inputs.ndim)) or (1,)
    return inputs.mean(dim=positions, keepdim=True).expand_as(inputs)


def _blurred(inputs: Tensor) -> Tensor:
    if inputs.ndim not in (3, 4):
        raise InvalidRequest(
            f"reference 'blurred' does not apply to inputs of shape {tuple(inputs.shape)}; "
            "valid: (N, C, H, W) or (N, C, L)"
        )
    images = inputs if inputs.ndim == 4 else inputs.unsqueeze(2)
    sigma_px = images.new_full((len(images),), BLUR * max(images.shape[2:]))
    return blur(images, sigma_px).reshape(inputs.shape)


def _permutations(inputs: Tensor, count: int, seed: int) -> Tensor:
    """Positions in another order, the same for every channel; entries where there is one dimension."""
    rows = inputs.reshape(len(inputs), -1, inputs[0, 0].numel() if inputs.ndim > 2 else inputs.shape[1])
    generator = torch.Generator().manual_seed(seed)  # the same orders for each input: none depends on others
    orders = torch.stack([torch.randperm(rows.shape[2], generator=generator) for _ in range(count)])
    shuffled = rows[:, :, orders.to(inputs.device)].movedim(2, 1)  # (N, count, C, positions)
    return shuffled.reshape(len(inputs), count, *inputs.shape[1:])


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
        kept = [int(after[last[letter]])] if letter in last else []
        order[letter] = (
            kept + generator.permutation(left).tolist()
        )  # popped from the end: the kept comes last
    path = [int(sequence[0])]
    for _ in range(len(sequence) - 1):
        path.append(order[path[-1]].pop())
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
