"""Batch sizes: how many lanes a pass may take so that each comes out as it does alone, bit for bit.

An image alone is the shape that counts: a lane that nobody shares its step with costs nothing extra. A larger
batch is used where it has shown, at its first need, that every image in it, wherever it stands, has the same
bits as alone: those of the layers that are read, of their memory layout and of the gradient. Where no batch
does, lanes are evaluated one at a time. `proxygrad.kernels` sees to it that most do on the CPU. What is found
depends on network, layers, image size, precision, threads and CPU, and never on time or on other lanes.

On CUDA, where a kernel suits one shape, that shape is the same always: a batch of `SHAPE`, filled with
copies.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from proxygrad.engine.capacity import DEFAULT_MAX_LANES, out_of_memory, release
from proxygrad.engine.evaluation import PASS_PIXELS

log = logging.getLogger(__name__)

#: Images of a pass on CUDA.
SHAPE = DEFAULT_MAX_LANES
#: Images of a trial, at least: rounding to bfloat16 hides most differences of two.
TRIED = 8
#: What the images of a trial have in place of a lane's slope, in turn: one batch mixes them.
SLOPES = (0.05, 0.0, 0.2)


class Rounding(NamedTuple):
    """What a pass makes of one image: the bits that must not change. ``values`` of each layer, and the
    ``gradient``, each ``(1, …)``.
    """

    values: tuple[Tensor, ...]
    gradient: Tensor

    def same(self, other: Rounding) -> bool:
        """Whether bits and memory layouts are equal."""
        pairs = zip((*self.values, self.gradient), (*other.values, other.gradient), strict=True)
        return all(torch.equal(a, b) and _layout(a) == _layout(b) for a, b in pairs)


#: Runs some images ``(B, C, H, W)``, with the slope of each, as one batch: a `Rounding` for each.
Attempt = Callable[[Tensor, Sequence[float]], Sequence[Rounding]]


class BatchSizes:
    """The batch sizes of one group.

    ``shape``: of an image, ``(C, H, W)``. ``known``: what was found before for such groups; added to.
    ``mixed``: whether lanes of several slopes share a pass.
    """

    def __init__(
        self,
        trial: Attempt,
        shape: Sequence[int],
        device: torch.device,
        known: MutableMapping[tuple[int, int], bool],
        mixed: bool = True,
    ) -> None:
        self._trial = trial
        self._shape = tuple(shape)
        self._device = device
        self._known = known
        self._slopes = SLOPES if mixed else SLOPES[:1]
        self._alone: list[Rounding] = []
        self._too_large = set[int]()  # for memory, which may be free again for the next group
        self.most = max(1, min(DEFAULT_MAX_LANES, PASS_PIXELS // (shape[1] * shape[2])))

    def fitting(self, waiting: int) -> int:
        """How many of ``waiting`` lanes the next pass takes: at least 1."""
        if self._device.type == "cuda":
            return min(waiting, SHAPE)
        most = min(waiting, self.most)
        halves = [2**power for power in range(most.bit_length() - 1, 0, -1)]
        return next((size for size in dict.fromkeys((most, *halves)) if size > 1 and self._agrees(size)), 1)

    def split(self, lanes: int) -> list[int]:
        """So many lanes as batches of fitting sizes, the largest first."""
        sizes = list[int]()
        while (left := lanes - sum(sizes)) > 0:
            sizes.append(self.fitting(left))
        return sizes

    def _agrees(self, size: int) -> bool:
        key = (size, torch.get_num_threads())
        if key not in self._known and size not in self._too_large:
            found = self._tried(size)
            if found is None:
                self._too_large.add(size)
            else:
                self._known[key] = found
        return self._known.get(key, False)

    def _tried(self, size: int) -> bool | None:
        """Whether such a batch rounds as one image does; None where memory runs out."""
        try:
            while len(self._alone) < max(size, TRIED):
                number = len(self._alone)
                self._alone += self._trial(self._image(number), self._slopes_of([number]))
            different = self._different(size)
        except torch.AcceleratorError:
            raise
        except Exception as error:  # perhaps of a network that takes fewer images at a time
            log.info("no batch of %d images: %s: %s", size, type(error).__name__, error)
            if not out_of_memory(error):
                return False
        else:
            if different:
                log.info("no batch of %d images: %d of them round in another way", size, len(different))
            return not different
        release(self._device)  # out here no exception holds the frames of the failed pass
        return None

    def _different(self, size: int) -> list[int]:
        """The images that come out otherwise in batches of ``size``, each in another place than before."""
        different, count = list[int](), len(self._alone)
        for first in range(0, max(size, TRIED), size):
            order = [(first + place) % count for place in range(size)][::-1]
            found = self._trial(torch.cat([self._image(number) for number in order]), self._slopes_of(order))
            different += [
                number
                for number, each in zip(order, found, strict=True)
                if not each.same(self._alone[number])
            ]
            if different:
                break
        return different

    def _image(self, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(number)
        return torch.rand((1, *self._shape), generator=generator, dtype=torch.float32).to(self._device)

    def _slopes_of(self, numbers: Sequence[int]) -> list[float]:
        return [self._slopes[number % len(self._slopes)] for number in numbers]


def _layout(value: Tensor) -> list[int]:
    """Strides of the dimensions that have any, but the batch."""
    return [step for step, side in zip(value.stride()[1:], value.shape[1:], strict=True) if side > 1]
