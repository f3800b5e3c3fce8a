"""`attribute`: contributions to an objective, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from proxygrad.attribution.choice import RuleLike, checked
from proxygrad.attribution.gradients import METHODS, POINTS
from proxygrad.attribution.references import references as references_of
from proxygrad.attribution.result import Attribution
from proxygrad.attribution.slices import Procedure, SlicedAttribution
from proxygrad.attribution.target import MeanNormalized, ModuleReader, Target, objective_of
from proxygrad.errors import InvalidRequest
from proxygrad.maximization.parsing import as_objective
from proxygrad.networks.ambient import differentiable
from proxygrad.networks.network import Network
from proxygrad.objectives.base import Objective


@dataclass(frozen=True)
class Settings:
    """The settings of `attribute`, which describes them. ``each``: keep what each reference gives."""

    reference: Any = "zeros"
    rule: RuleLike = "auto"
    at: str | None = None
    method: str = "deeplift"
    strict: bool = False
    dtype: torch.dtype | None = None
    seed: int = 0
    references: int | None = None
    points: int = POINTS
    max_rows: int | None = None
    normalize_logits: bool = False
    each: bool = True


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
            "dinucleotide_shuffled", a number, a tensor, a function, or a list of these, over which
            contributions are averaged (`proxygrad.attribution.references`).
        rule: "auto", "rescale", "revealcancel" or "gradient", or these by layer, with "default".
        at: a layer whose activation is attributed to in place of the input.
        method: "deeplift", or one of `proxygrad.attribution.gradients`.
        strict: refuse operations that have no rule.
        dtype: `torch.float64` computes in it.
        seed: of random references.
        references: how many shuffles each input has, 20 unless said otherwise.
        points: on the path of "integrated_gradients".
        max_rows: how many pairs of input and reference, or points between them, run at once; by memory where
            it is not given.
        normalize_logits: take off the mean over all units of the objective's layer.

    Raises:
        InvalidRequest: an argument is not valid; the message has the value and what is.
        NetworkError: the network cannot be attributed.
        OutOfMemory: not even one pair fits.
    """
    settings = Settings(
        *(reference, rule, at, method, strict, dtype, seed, references, points, max_rows, normalize_logits)
    )
    found = begin(network, inputs, objective, settings)
    while found.step < found.steps:
        found.advance()
    return found.result()


@differentiable()  # whatever the caller's modes are
def begin(network: Network | nn.Module, inputs: Any, objective: Any, settings: Settings) -> SlicedAttribution:
    """The attribution of the arguments of `attribute`, before its first slice. Raises `InvalidRequest`."""
    subject, at, method = _subject(network, settings.dtype), settings.at, settings.method
    x = _inputs(inputs, subject, settings.dtype)
    if at is None and not x.is_floating_point():
        raise InvalidRequest(f"inputs of {x.dtype} have no contributions; valid: at=, an embedding layer")
    objectives = _objectives(objective, subject, x, settings.normalize_logits)
    pairs = references_of(settings.reference, x, settings.references, settings.seed)  # (N, k, *S)
    if not len(x):
        raise InvalidRequest(f"inputs have shape {tuple(x.shape)}; valid: one or more")
    target = Target(subject, objectives)
    rules = checked(settings.rule, [*target.modules])
    if at is not None:
        target.check_layer(at)
    if settings.max_rows is not None and settings.max_rows < 1:
        raise InvalidRequest(f"max_rows {settings.max_rows} must be at least 1")
    if method != "deeplift" and (method not in METHODS or at is not None):
        raise InvalidRequest(
            f"method {method!r}; valid: deeplift, {', '.join(METHODS)}; at is for deeplift alone"
        )
    points = settings.points if method == "integrated_gradients" else 1
    if points < 1:
        raise InvalidRequest(f"points={points}: integrated gradients need at least one")
    how = Procedure(method, rules, at, settings.strict, points, settings.max_rows, settings.each)
    return SlicedAttribution(target, x, pairs, how)


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
