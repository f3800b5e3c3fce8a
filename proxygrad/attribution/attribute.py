"""`attribute`: contributions to an objective, in one call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from proxygrad.attribution.choice import RuleLike, checked
from proxygrad.attribution.deeplift import Found, deeplift
from proxygrad.attribution.gradients import METHODS, POINTS
from proxygrad.attribution.multipliers import Account
from proxygrad.attribution.references import references as references_of
from proxygrad.attribution.result import Attribution, Delta, Missed
from proxygrad.attribution.target import MeanNormalized, ModuleReader, Target, objective_of
from proxygrad.engine.capacity import DEFAULT_MAX_LANES, Capacity, out_of_memory, release
from proxygrad.errors import InvalidRequest, NetworkError, OutOfMemory
from proxygrad.maximization.parsing import as_objective
from proxygrad.networks.ambient import differentiable
from proxygrad.networks.network import Network
from proxygrad.objectives.base import Objective


@differentiable()  # whatever the caller's modes are
def attribute(  # noqa: PLR0913, each of them named
    network: Network | nn.Module,
    inputs: Any,
    objective: Any,
    *,
    reference: Any = "zeros",
    rule: RuleLike = "auto",
    at: str | None = None,
    method: str = "deeplift",
    strict: bool = False,
    dtype: torch.dtype | None = None,
    seed: int = 0,
    references: int | None = None,
    points: int = POINTS,
    max_rows: int | None = None,
    normalize_logits: bool = False,
) -> Attribution:
    """How much each number of an input adds to an objective, compared with a reference.

    Args:
        network: a `Network`, whose inputs are pixels in [0, 1], or a module, which takes what it takes.
        inputs: ``(N, *S)``, or one image ``(C, H, W)`` of a `Network`: a tensor, an array or a PIL image.
        objective: as of `maximize`, one for all inputs or one for each; logits, not probabilities.
        reference: what inputs are compared with: "zeros", "mean", "blurred", "shuffled",
            "dinucleotide_shuffled", a number, a tensor or a function (`proxygrad.attribution.references`).
        rule: "auto", "rescale", "revealcancel" or "gradient", or these by layer, with "default".
        at: a layer whose activation is attributed to in place of the input.
        method: "deeplift", or one of `proxygrad.attribution.gradients`.
        strict: refuse operations that have no rule.
        dtype: `torch.float64` computes in it.
        seed: of random references.
        references: how many shuffles each input has, 20 unless said otherwise.
        points: on the path of "integrated_gradients".
        max_rows: how many pairs of input and reference run at once; by memory where it is not given.
        normalize_logits: take off the mean over all units of the objective's layer.

    Raises:
        InvalidRequest: an argument is not valid; the message has the value and what is.
        NetworkError: the network cannot be attributed.
        OutOfMemory: not even one pair fits.
    """
    subject = _subject(network, dtype)
    x = _inputs(inputs, subject, dtype)
    if at is None and not x.is_floating_point():
        raise InvalidRequest(f"inputs of {x.dtype} have no contributions; valid: at=, an embedding layer")
    objectives = _objectives(objective, subject, x, normalize_logits)
    pairs = references_of(reference, x, references, seed)  # (N, k, *S)
    count = pairs.shape[1]
    if not len(x):
        raise InvalidRequest(f"inputs have shape {tuple(x.shape)}; valid: one or more")
    repeated = [each for each in objectives for _ in range(count)]
    target = Target(subject, repeated)
    rules = checked(rule, [*target.modules])
    if at is not None:
        target.check_layer(at)
    if max_rows is not None and max_rows < 1:
        raise InvalidRequest(f"max_rows {max_rows} must be at least 1")
    if method != "deeplift" and (method not in METHODS or at is not None):
        raise InvalidRequest(
            f"method {method!r}; valid: deeplift, {', '.join(METHODS)}; at is for deeplift alone"
        )

    def run(rows: slice) -> tuple[Tensor, Found]:
        numbers = torch.arange(rows.start, rows.stop, device=x.device)
        own, own_x, own_x0 = target.of_rows(rows), x[numbers // count], pairs.flatten(0, 1)[rows]
        if method == "deeplift":
            found = deeplift(own, own_x, own_x0, rules, at, strict)
            return found.multipliers * found.difference, found
        contributions, multipliers = METHODS[method](own, own_x, own_x0, points)
        with torch.no_grad():
            return contributions, Found(
                multipliers, own_x - own_x0, own(own_x), own(own_x0), Account(len(own_x))
            )

    found = _sliced(run, len(x) * count, max_rows, x.device)
    return _averaged(found, pairs, method)


def _subject(network: Any, dtype: torch.dtype | None) -> Network | ModuleReader:
    if dtype not in (None, torch.float32, torch.float64):
        raise InvalidRequest(f"dtype {dtype}; valid: torch.float32, torch.float64")
    if isinstance(network, Network):
        if len(network.layers):
            _ = network.batching  # found by passes of its own, before any is recorded
        return network.in_float64() if dtype == torch.float64 else network
    if isinstance(network, nn.Module):
        return ModuleReader(network, dtype or torch.float32)
    raise InvalidRequest(
        f"network is of type {type(network).__name__}; valid: a Network or a torch.nn.Module"
    )


def _inputs(given: Any, subject: Network | ModuleReader, dtype: torch.dtype | None) -> Tensor:
    """``(N, *S)`` on the network's device."""
    if not isinstance(given, Tensor | np.ndarray) and hasattr(given, "getdata"):  # an image of PIL
        mode = {1: "L", 3: "RGB"}.get(subject.input_shape[0]) if isinstance(subject, Network) else None
        pixels = np.asarray(given.convert(mode) if mode else given, dtype=np.float32) / 255
        given = torch.from_numpy(pixels if pixels.ndim == 3 else pixels[..., None]).permute(2, 0, 1)
    x = torch.as_tensor(given).detach().to(subject.device).to_dense()
    if x.is_floating_point() or isinstance(subject, Network):
        x = x.to(dtype or torch.float32)
    if isinstance(subject, Network):
        x = x.unsqueeze(0) if x.ndim == 3 else x
        if x.ndim != 4 or x.shape[1] != subject.input_shape[0]:
            raise InvalidRequest(
                f"inputs have shape {tuple(x.shape)}; valid: ({subject.input_shape[0]}, height, width), or "
                f"(N, {subject.input_shape[0]}, height, width)"
            )
    if x.is_floating_point() and not bool(x.isfinite().all()):
        raise InvalidRequest("inputs hold values that are not finite")
    return x


def _objectives(
    given: Any, subject: Network | ModuleReader, x: Tensor, normalize_logits: bool
) -> list[Objective]:
    """One for each input, checked against the layers' shapes."""
    several = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if len(several) not in (1, len(x)):
        raise InvalidRequest(f"{len(several)} objectives for {len(x)} input(s); valid: one, or one for each")
    made: dict[Any, Objective] = {}
    found = []
    for each in several:
        key = each if isinstance(each, str) else id(each)
        if key not in made:
            made[key] = _objective(each, subject, x, normalize_logits)
        found.append(made[key])
    return found * len(x) if len(found) == 1 else found


def _objective(given: Any, subject: Network | ModuleReader, x: Tensor, normalize_logits: bool) -> Objective:
    if isinstance(subject, Network):
        objective = as_objective(given, subject)
    else:
        objective = objective_of(given, subject, x)
    if normalize_logits:
        objective = MeanNormalized(objective)
    if isinstance(subject, Network):
        return objective.at(
            {each: subject.layer_shape(each, (x.shape[2], x.shape[3])) for each in objective.layers}
        )
    with torch.no_grad():
        shapes = {
            layer: tuple(value.shape[1:]) for layer, value in subject.read(x[:1], objective.layers).items()
        }
    return objective.at(shapes)


def _sliced(run: Any, rows: int, max_rows: int | None, device: torch.device) -> list[tuple[Tensor, Found]]:
    """``run`` for slices of the rows that fit in memory."""
    capacity, begin, found = Capacity(device), 0, []
    while begin < rows:
        most = min(rows - begin, max_rows or capacity.lanes(DEFAULT_MAX_LANES), capacity.limit or rows)
        try:
            with capacity.watched(most):
                found.append(run(slice(begin, begin + most)))
        except Exception as error:
            if not out_of_memory(error):
                raise
            if most == 1:
                raise OutOfMemory(f"not even one pair of input and reference fits on {device}") from error
            capacity.halve(most)
        else:
            capacity.passed(most)
            begin += most
            continue
        release(device)
    return found


def _averaged(slices: list[tuple[Tensor, Found]], pairs: Tensor, method: str) -> Attribution:
    """The mean over each input's references."""
    n, k = pairs.shape[:2]
    founds = [found for _, found in slices]

    def split(rows: list[Tensor]) -> Tensor:
        together = torch.cat(rows)
        return together.view(n, k, *together.shape[1:])

    each_multipliers = split([found.multipliers for found in founds])
    contributions = split([each for each, _ in slices])
    value = split([found.value for found in founds])
    before = split([found.reference_value for found in founds])
    for row, each in enumerate(value[:, 0].tolist()):
        if not math.isfinite(each):
            raise NetworkError(f"the objective of input {row} is {each}")
    finite = contributions.flatten(1).isfinite().all(1)
    if not bool(finite.all()):
        row = int(finite.long().argmin())
        raise NetworkError(f"the contributions of input {row} are not finite: its numbers are too large")
    sums = contributions.flatten(2).sum(2, dtype=torch.float64).mean(1)
    difference = (value.double() - before.double()).mean(1)
    absolute = sums - difference
    scale = float((value.double() - before.double()).abs().sum())
    operations, unruled = _missed([found.account for found in founds], scale)
    return Attribution(
        contributions.mean(1),
        each_multipliers.mean(1),
        value[:, 0],
        before.mean(1),
        Delta(absolute, (absolute / difference).abs().nan_to_num(nan=0.0, posinf=torch.inf), operations),
        unruled,
        references=pairs,
        each_multipliers=each_multipliers,
        method=method,
    )


def _missed(accounts: list[Account], scale: float) -> tuple[tuple[Missed, ...], tuple[Missed, ...]]:
    """By operation and layer, the largest first; and those of them without a rule."""
    sums: dict[tuple[str, str], float] = {}
    for account in accounts:
        for key, missed in account.missed.items():
            sums[key] = sums.get(key, 0.0) + missed
    without = {key for account in accounts for key in account.unruled}
    order = sorted(sums, key=lambda key: -abs(sums[key]))
    found = {key: Missed(*key, sums[key], abs(sums[key]) / scale if scale else 0.0) for key in order}
    return tuple(found.values()), tuple(each for key, each in found.items() if key in without)
