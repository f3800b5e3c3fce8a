"""What `attribute` returns: contributions, multipliers, and what summation-to-delta misses."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from proxygrad.attribution.references import check_one_hot
from proxygrad.errors import InvalidRequest

#: A representation lists so many operations.
_SHOWN = 3


@dataclass(frozen=True)
class Missed:
    """What one operation of one layer misses: the sum that its multipliers stand for, before it less behind.

    ``missed``: in units of the objective, summed over the rows of the batch without signs. ``share``: of the
    sum of all differences of the objective; nan where that is 0.
    """

    operation: str
    layer: str
    missed: float
    share: float

    def __str__(self) -> str:
        where = f" in {self.layer!r}" if self.layer else ""
        return f"{self.operation}{where}: {self.missed:.2g} (share {self.share:.2g})"


@dataclass(frozen=True, repr=False, eq=False)
class Delta:
    """What contributions miss of summation-to-delta: their sum less the difference of the objective.

    ``absolute``: ``(N,)``, in units of the objective, with its sign. ``relative``: ``(N,)``, as a share of
    the difference, without; nan where the objective does not differ, so that there is nothing to take a share
    of. ``operations``: what each operation of each layer misses, the largest first; empty for methods that
    know no operations.
    """

    absolute: Tensor
    relative: Tensor
    operations: tuple[Missed, ...] = ()

    def __repr__(self) -> str:
        lines = [
            f"Delta(absolute up to {_largest(self.absolute):.2g}, relative {_largest(self.relative):.2g}"
        ]
        lines += [f"  {each}" for each in self.operations[:_SHOWN]]
        return "\n".join(lines) + ")"


@dataclass(frozen=True, repr=False, eq=False)
class Attribution:
    """Contributions to an objective, for each input.

    ``contributions``: ``(N, *S)``, how much each number of the input, or of the layer ``at``, adds to the
    difference of the objective from that of the reference; the mean over references. ``multipliers``:
    ``(N, *S)``, what each would count per unit; their mean. ``value``: ``(N,)``, the objective.
    ``reference_value``: ``(N,)``, that of the reference, or the mean of several. ``delta``: what the sums
    miss. ``unruled``: operations without a rule, which went by their gradient, with what they miss.
    ``references``: ``(N, k, *S)``, those of the network's input. ``each_multipliers``: ``(N, k, *S)``, those
    for each reference. ``method``: by which they were found.
    """

    contributions: Tensor
    multipliers: Tensor
    value: Tensor
    reference_value: Tensor
    delta: Delta
    unruled: tuple[Missed, ...] = ()
    references: Tensor = field(kw_only=True)
    each_multipliers: Tensor = field(kw_only=True)
    method: str = "deeplift"

    def hypothetical(self, inputs: Tensor) -> Tensor:
        """What each letter of one-hot ``inputs`` ``(N, letters, L)`` would contribute if it stood there.

        A letter in place of the reference changes every entry of its column, so it contributes
        ``Σ_c m_c (letter_c − reference_c)``, which is what the DeepLIFT authors compute for one-hot inputs
        and TF-MoDISco takes. For the letter that stands there it is the sum of the column's contributions.
        Of several references, the mean. Raises `InvalidRequest` for inputs that are not one-hot, or of
        another shape than the contributions.
        """
        check_one_hot(inputs)
        if inputs.shape != self.contributions.shape:
            raise InvalidRequest(
                f"inputs of shape {tuple(inputs.shape)} for contributions of "
                f"shape {tuple(self.contributions.shape)}"
            )
        there = self.contributions.sum(dim=1, keepdim=True)  # Σ m (x − reference)
        return self.multipliers + there - (self.multipliers * inputs).sum(dim=1, keepdim=True)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.contributions.shape))
        lines = [f"Attribution({self.method}, contributions {shape}"]
        pairs = zip(self.reference_value.tolist(), self.value.tolist(), strict=True)
        shown = [f"{before:.4g} → {after:.4g}" for before, after in pairs]
        more = f", … and {len(shown) - 4} more" if len(shown) > 4 else ""
        lines.append(f"  objective {', '.join(shown[:4])}{more}")
        absolute, relative = _largest(self.delta.absolute), _largest(self.delta.relative)
        lines.append(f"  delta: absolute up to {absolute:.2g}, relative {relative:.2g}")
        lines += [f"    {each}" for each in self.delta.operations[:_SHOWN]]
        if self.unruled:
            names = ", ".join(str(each) for each in self.unruled[:_SHOWN])
            lines.append(f"  without a rule: {names}")
        return "\n".join(lines) + ")"


def _largest(values: Tensor) -> float:
    """Of those that are numbers; nan where none is."""
    numbers = values[~values.isnan()]
    return float(numbers.abs().max()) if numbers.numel() else float("nan")
