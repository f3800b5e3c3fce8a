"""Networks that fold the batch, mix it, take no batch, or draw random numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.corpus.case import Case, Net


class MirrorImages(Net):
    def forward(self, x: Tensor) -> Any:
        one, other = super().forward(torch.cat([x, x.flip(3)])).chunk(2)
        return (one + other) / 2


class Crops(Net):
    """Four quarters of each image, one after another: folded, yet in the order of the images."""

    def forward(self, x: Tensor) -> Any:
        quarters = x.unfold(2, 6, 6).unfold(3, 6, 6).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        return super().forward(quarters).view(-1, 4, 4).mean(1)


class PositionsFirst(Net):
    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        y = self.act(y.flatten(2).permute(2, 0, 1)).permute(1, 2, 0).reshape(y.shape)
        return self.fc(self.act(self.conv2(y)).mean((2, 3)))


class TimeFirst(Net):
    """``(T, B, D)``: rows as a sequence."""

    def forward(self, x: Tensor) -> Any:
        rows = self.act(self.conv(x)).mean(3).permute(2, 0, 1)  # (T, B, 6)
        return self.act(self.fc(rows)).mean(0)


class ChannelsInBatch(Net):
    """Each channel for itself, channel by channel."""

    def forward(self, x: Tensor) -> Any:
        planes = x.transpose(0, 1).flatten(0, 1).unsqueeze(1).expand(-1, 3, -1, -1)  # (3 B, 3, H, W)
        return super().forward(planes).unflatten(0, (3, -1)).sum(0)


class MinibatchDeviation(Net):
    def forward(self, x: Tensor) -> Any:
        y = self.features(x)
        return self.fc((y + 5 * y.std(0, unbiased=False).mean()).mean((2, 3)))


class BatchStatistics(Net):
    def forward(self, x: Tensor) -> Any:
        y = functional.batch_norm(self.conv(x), None, None, training=True)
        return self.fc(self.act(self.conv2(self.act(y))).mean((2, 3)))


class KeptInTraining(Net):
    """A batch norm that its owner keeps in training mode."""

    def train(self, mode: bool = True) -> KeptInTraining:
        super().train(mode)
        self.bn.train()
        return self


class AcrossImages(Net):
    """Attention over the images of the batch."""

    def forward(self, x: Tensor) -> Any:
        y = self.features(x).mean((2, 3))
        return self.fc((y @ y.T).softmax(1) @ y)


class LargestOfBatch(Net):
    def forward(self, x: Tensor) -> Any:
        y = self.features(x).mean((2, 3))
        return self.fc(y / y.amax())


class OneImage(Net):
    def forward(self, x: Tensor) -> Any:
        return self.fc(self.features(x).mean((2, 3)).view(1, -1))


class FirstImage(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x[:1])


class Squeezing(Net):
    """Without the batch inside."""

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.features(x.squeeze(0).unsqueeze(0)).squeeze(0).mean((1, 2))).unsqueeze(0)


class ByTheBrightest(Net):
    """Control flow that all images decide together."""

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return self.fc(
            self.act(self.conv2(self.act(self.bn(y) if float(x.detach().max()) > 0.7 else y))).mean((2, 3))
        )


class Dropping(Net):
    def forward(self, x: Tensor) -> Any:
        return self.fc(functional.dropout(self.features(x).mean((2, 3)), 0.5))


class Noisy(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x + 0.1 * torch.randn_like(x))


class MonteCarlo(Net):
    """Dropout that its owner keeps on."""

    def __init__(self, act: Any) -> None:
        super().__init__(act)
        self.dropout = nn.Dropout(0.3)

    def train(self, mode: bool = True) -> MonteCarlo:
        super().train(mode)
        self.dropout.train()
        return self

    def features(self, x: Tensor) -> Tensor:
        return self.dropout(super().features(x))  # type: ignore[no-any-return]


class ClampedParameter(Net):
    """A rectifier of weights: it has no lanes."""

    def __init__(self, act: Any) -> None:
        super().__init__(act)
        self.scale = nn.Parameter(torch.tensor([1.0, -2.0, 3.0, 0.5, 9.0]))

    def forward(self, x: Tensor) -> Any:
        scale = functional.relu(self.scale).clamp(max=2.0).sum() + functional.softplus(self.scale).mean()
        return super().forward(x) * scale


class MixingFromThree(Net):
    def forward(self, x: Tensor) -> Any:
        y = self.features(x).mean((2, 3))
        return self.fc(y - y.mean(0) if len(y) > 2 else y)


class ClipsOfFour(Net):
    """Frames of a video, where there are enough for one."""

    def forward(self, x: Tensor) -> Any:
        y = self.features(x).mean((2, 3))
        return self.fc(y.view(-1, 4, 6).mean(1).repeat_interleave(4, 0) if len(y) % 4 == 0 else y)


class NoiseOfThePlace(Net):
    def __init__(self, act: Any) -> None:
        super().__init__(act)
        self.register_buffer("noise", 0.3 * torch.randn(64, 3, 12, 12))

    def forward(self, x: Tensor) -> Any:
        return super().forward(x + self.noise[: len(x)])  # type: ignore[index]


class ShuffledBatch(Net):
    """Random where there is more than one image to shuffle."""

    def forward(self, x: Tensor) -> Any:
        y = self.features(x).mean((2, 3))
        return self.fc(y[torch.randperm(len(y))] if len(y) > 1 else y)


class NoisyWhereBright(Net):
    def forward(self, x: Tensor) -> Any:
        y = self.features(x).mean((2, 3))
        return self.fc(y + torch.rand(6) if float(x.detach().mean()) > 0.52 else y)


class AtMostTwo(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x + torch.zeros(2, 3, 12, 12)[: len(x)])


class RolledByTwo(Net):
    """Rectifiers see two images in order, and three in another."""

    def __init__(self, act: Any) -> None:
        super().__init__(lambda x: act(x.roll(2, 0)).roll(-2, 0))


#: Those that are run one by one, and those that need one slope for all; the others are as usual.
ALONE: dict[str, Case] = {
    "minibatch deviation": Case(MinibatchDeviation),
    "batch statistics": Case(BatchStatistics),
    "kept in training": Case(KeptInTraining),
    "across images": Case(AcrossImages),
    "largest of the batch": Case(LargestOfBatch),
    "one image": Case(OneImage),
    "first image": Case(FirstImage),
    "no batch inside": Case(Squeezing),
    "by the brightest": Case(ByTheBrightest),
    "dropping": Case(Dropping),
    "noisy": Case(Noisy),
    "Monte Carlo": Case(MonteCarlo),
    "mixing from three on": Case(MixingFromThree),
    "clips of four": Case(ClipsOfFour),
    "noise of the place": Case(NoiseOfThePlace),
    "shuffled batch": Case(ShuffledBatch),
    "noisy where bright": Case(NoisyWhereBright),
    "at most two": Case(AtMostTwo),
}
FOLDED: dict[str, Case] = {
    "mirror images": Case(MirrorImages),
    "positions first": Case(PositionsFirst),
    "time first": Case(TimeFirst),
    "channels in the batch": Case(ChannelsInBatch),
    "rolled by two": Case(RolledByTwo),
}
BATCHES: dict[str, Case] = {
    **ALONE,
    **FOLDED,
    "crops": Case(Crops),
    "usual": Case(Net),
    "clamped parameter": Case(ClampedParameter),
}
