"""Ways of training to compare: ReLU, Leaky ReLU, ProxyGrad, SUGAR, and gradient activation functions.

A method has a short name, which says all of it::

    relu  leaky_relu:0.01  proxygrad:0.05  proxygrad:0.3-0  sugar:bsilu  gaf:log@adam  relu*2

``:`` is followed by its parameter, a slope ``a-b`` goes linearly from a to b over the training, ``@`` names
the optimizer (default SGD with momentum), and ``*`` multiplies the learning rate.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from torch import nn
from torch.optim import SGD, Adam, Optimizer

from proxygrad.backward.sugar import DerivativeName, sugar
from proxygrad.backward.surrogate import surrogate
from proxygrad.errors import InvalidRequest
from proxygrad.spec.settings import GafName
from proxygrad.training.gaf import GAF

Kind = Literal["relu", "leaky_relu", "proxygrad", "gaf", "sugar"]
OptimizerName = Literal["sgd", "adam"]

#: The usual ones: torch's default slope of Leaky ReLU, momentum as in Liu et al.
LEAKY_SLOPE, MOMENTUM = 0.01, 0.9
_DEFAULTS: dict[str, str] = {"leaky_relu": "0.01", "proxygrad": "0.05", "gaf": "atan", "sugar": "bsilu"}
_FORM = re.compile(r"(?P<kind>\w+)(:(?P<value>[\w.\-]+))?(@(?P<optimizer>\w+))?(\*(?P<factor>[\d.]+))?")


@dataclass(frozen=True)
class Method:
    """One way of training. ``slope``, ``slope_end``: of ``leaky_relu`` and ``proxygrad``."""

    kind: Kind
    slope: float = 0.0
    slope_end: float = 0.0
    derivative: DerivativeName = "bsilu"
    gaf: GafName = "none"
    optimizer: OptimizerName = "sgd"
    factor: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Method:
        """The method of that name. Raises `InvalidRequest` with the valid choices."""
        match = _FORM.fullmatch(text)
        kind = match["kind"] if match else text
        if match is None or kind not in get_args(Kind):
            raise InvalidRequest(
                f"method {text!r}; there are {', '.join(get_args(Kind))}, as in proxygrad:0.05, "
                "proxygrad:0.3-0, leaky_relu:0.01, sugar:bsilu, gaf:atan@adam, relu*2"
            )
        optimizer = match["optimizer"] or "sgd"
        if optimizer not in get_args(OptimizerName):
            raise InvalidRequest(f"method {text!r}: optimizer {optimizer!r}; there are 'sgd', 'adam'")
        value = match["value"] or _DEFAULTS.get(kind, "")
        plain = cls(
            cast(Kind, kind), optimizer=cast(OptimizerName, optimizer), factor=float(match["factor"] or 1)
        )
        if kind == "relu":
            if value:
                raise InvalidRequest(f"method {text!r}: relu has no parameter")
            return plain
        if kind == "sugar":
            return replace(plain, derivative=_chosen(text, value, get_args(DerivativeName)))
        if kind == "gaf":
            return replace(plain, gaf=_chosen(text, value, get_args(GafName)[1:]))
        slope, slope_end = _slopes(text, value, several=kind == "proxygrad")
        return replace(plain, slope=slope, slope_end=slope_end)

    @property
    def name(self) -> str:
        """What `parse` takes."""
        value = {
            "relu": "",
            "leaky_relu": f":{self.slope:g}",
            "proxygrad": f":{self.slope:g}"
            + (f"-{self.slope_end:g}" if self.slope_end != self.slope else ""),
            "gaf": f":{self.gaf}",
            "sugar": f":{self.derivative}",
        }[self.kind]
        optimizer = "" if self.optimizer == "sgd" else f"@{self.optimizer}"
        return f"{self.kind}{value}{optimizer}" + (f"*{self.factor:g}" if self.factor != 1 else "")

    def rectifier(self) -> nn.Module:
        """What the network has for activations."""
        return nn.LeakyReLU(self.slope) if self.kind == "leaky_relu" else nn.ReLU()

    def block(self, done: float) -> AbstractContextManager[object]:
        """Around a forward pass, after the share ``done`` in [0, 1] of the training."""
        if self.kind == "proxygrad":
            return surrogate(self.slope + done * (self.slope_end - self.slope))
        return sugar(self.derivative) if self.kind == "sugar" else nullcontext()

    def make_optimizer(self, network: nn.Module, learning_rate: float) -> Optimizer:
        """The optimizer; ``learning_rate`` is multiplied with ``factor``."""
        rate = learning_rate * self.factor
        own: Optimizer = (
            SGD(network.parameters(), lr=rate, momentum=MOMENTUM)
            if self.optimizer == "sgd"
            else Adam(network.parameters(), lr=rate)
        )
        return own if self.gaf == "none" else GAF(own, self.gaf)


def _chosen(text: str, value: str, choices: tuple[Any, ...]) -> Any:
    if value not in choices:
        raise InvalidRequest(f"method {text!r}: {value!r} is none of {', '.join(choices)}")
    return value


def _slopes(text: str, value: str, several: bool) -> tuple[float, float]:
    try:
        numbers = [float(each) for each in value.split("-")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 1 + several or not all(0 <= number <= 1 for number in numbers):
        raise InvalidRequest(
            f"method {text!r}: slope {value!r}; valid: a number from 0 to 1, or a-b of proxygrad"
        )
    return numbers[0], numbers[-1]
