"""Networks whose output is easily taken for something else, and odd modules on the way to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tests.corpus.case import Act, Case, Net, first_of


class InPlaceEnd(Net):
    def forward(self, x: Tensor) -> Any:
        y = self.bn(self.conv(x))
        y.mul_(2.0)
        return y.add_(0.5)


class ChildCalledOutput(Net):
    """The child is in the middle."""

    def __init__(self, act: Act) -> None:
        super().__init__(act)
        self.output = self.conv2
        del self.conv2

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.act(self.output(self.act(self.conv(x)))).mean((2, 3)))


class ChildCalledOutputEnds(Net):
    """The child is in the middle, and no child returns what the network does."""

    def __init__(self, act: Act) -> None:
        super().__init__(act)
        self.output = self.conv2
        del self.conv2

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.act(self.output(self.act(self.conv(x)))).mean((2, 3)))[:, :3]


class InADictionary(Net):
    def forward(self, x: Tensor) -> Any:
        return {"aux": None, "out": (super().forward(x), x)}


class WrittenOver(Net):
    """The head's own value is overwritten before it is returned."""

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        y[:, 1] = 2 * y[:, 1] + y[:, 2]
        return y


class Softmax(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).softmax(1)


class LogSoftmax(Net):
    def forward(self, x: Tensor) -> Any:
        return functional.log_softmax(super().forward(x), 1)


class Saving(Net):
    """Activation checkpointing of either kind."""

    reentrant = True

    def forward(self, x: Tensor) -> Any:
        y = checkpoint(self.features, x, use_reentrant=self.reentrant)
        return self.fc(y.mean((2, 3)))


class SavingAnew(Saving):
    reentrant = False


class Aliased(Net):
    """One module under two names."""

    def __init__(self, act: Act) -> None:
        super().__init__(act)
        self.again = self.conv2

    def forward(self, x: Tensor) -> Any:
        y = self.act(self.again(self.act(self.conv2(self.act(self.conv(x))))))
        return self.fc(y.mean((2, 3)))


class Spectral(Net):
    """Weights of a Fourier layer are complex."""

    def __init__(self, act: Act) -> None:
        super().__init__(act)
        self.filter = nn.Parameter(torch.randn(3, 12, 7, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Any:
        return super().forward(torch.fft.irfft2(torch.fft.rfft2(x) * self.filter))


class Recurrent(Net):
    """Rows of the image as a sequence."""

    def __init__(self, act: Act) -> None:
        super().__init__(act)
        self.rows = nn.LSTM(60, 6, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        y, _ = self.rows(self.act(self.conv(x)).transpose(1, 2).flatten(2))
        return self.fc(self.act(y).mean(1))


class Depth(Net):
    """A map without channels, ``(B, H, W)``."""

    def forward(self, x: Tensor) -> Any:
        return self.features(x).sum(1)


class Selected(Net):
    def forward(self, x: Tensor) -> Any:
        return self.features(x)[:, 0]


class Enlarged(Net):
    """Of a size that no module has."""

    def forward(self, x: Tensor) -> Any:
        return functional.interpolate(self.features(x)[:, :1], (9, 7), mode="bilinear").squeeze(1)


class Signal(nn.Module):
    """One row of values, and convolutions along it."""

    def __init__(self, act: Act) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.act, self.conv, self.conv2 = act, nn.Conv1d(1, 4, 5), nn.Conv1d(4, 4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.conv2(self.act(self.conv(x.flatten(2))))


class OneLogit(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x)[:, :1]


def exported(act: Act) -> nn.Module:
    import warnings

    dynamic = ({0: torch.export.Dim.AUTO},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(Net(act).eval(), (torch.rand(2, 3, 12, 12),), dynamic_shapes=dynamic)
        return program.module()


def traced(act: Act) -> nn.Module:
    graph: nn.Module = torch.fx.symbolic_trace(Net(act).eval())
    return graph


class SummandOfInferenceMode(Net):
    """A summand that is computed in `torch.inference_mode`, and copied out of it."""

    def forward(self, x: Tensor) -> Any:
        with torch.inference_mode():
            summand = self.conv(x).mean((2, 3)).sigmoid()
        return self.fc(self.features(x).mean((2, 3)) + summand.clone())


def whole(output: Any, unit: int) -> Tensor:
    value: Tensor = output[0].mean()
    return value


def packed(output: Any, unit: int) -> Tensor:
    return first_of(output["out"][0], unit)


ONE = (0, 0, 0)
OUTPUTS: dict[str, Case] = {
    "in-place end": Case(InPlaceEnd),
    "child called output": Case(ChildCalledOutput),
    "child called output, no end": Case(ChildCalledOutputEnds),
    "in a dictionary": Case(InADictionary, read=packed),
    "written over": Case(WrittenOver),
    "softmax": Case(Softmax),
    "logarithm of softmax": Case(LogSoftmax),
    "reentrant checkpoint": Case(Saving),
    "checkpoint": Case(SavingAnew),
    "aliased": Case(Aliased),
    "spectral": Case(Spectral),
    "recurrent": Case(Recurrent),
    "depth": Case(Depth, read=whole, units=ONE),
    "one channel selected": Case(Selected, read=whole, units=ONE),
    "enlarged": Case(Enlarged, read=whole, units=ONE),
    "one row": Case(Signal, shape=(1, 1, 24)),
    "one column": Case(Signal, shape=(1, 24, 1)),
    "one logit": Case(OneLogit, units=ONE),
    "summand of inference mode": Case(SummandOfInferenceMode),
    "exported": Case(exported, plainly=Net),
    "traced": Case(traced),
}
