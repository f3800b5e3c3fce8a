"""Memory that runs out makes steps smaller, not lanes fewer; only what does not fit alone fails."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from proxygrad.engine import capacity
from proxygrad.engine.capacity import CALM_SLICES, MOST_LANES, Capacity, out_of_memory
from proxygrad.engine.engine import Engine
from proxygrad.engine.group import Group, GroupKey
from proxygrad.engine.lane import DiversityGroup, Lane
from proxygrad.errors import LaneError, OutOfMemory
from proxygrad.networks.network import Network
from proxygrad.objectives.units import Channel
from proxygrad.spec import Spec
from proxygrad.spec.settings import AscentSettings
from tests.support.networks import Small

SIZE = (16, 16)
STEPS = 5


class Memory:
    """How many images fit, and what has been tried: one for all copies of a network."""

    def __init__(self) -> None:
        self.most = 1 << 30
        self.broken = False
        self.seen: list[int] = []
        self.made: list[weakref.ref[Tensor]] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> Memory:
        return self


class Held(torch.autograd.Function):
    """The graph of the first tensor holds the second, as that of a network holds what it has made."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, made: Tensor) -> Tensor:
        ctx.made = made
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class Tight(Small):
    """Runs out of memory where there are more than ``memory.most`` images, when its first layer has made
    something: those of this pass, and of passes that wait for their gradient."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.memory = memory

    def forward(self, x: Tensor) -> Tensor:
        self.memory.seen.append(len(x))
        made = self.conv(x)
        self.memory.made.append(weakref.ref(made))
        if self.memory.broken and self.memory.seen[-2:] in ([2, 2], [2, 1]):  # not the first slice of a step
            raise RuntimeError("a cable")
        alive = sum(len(each) for held in self.memory.made if (each := held()) is not None)
        if alive > self.memory.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has less.")
        return super().forward(Held.apply(x, made))  # type: ignore[no-untyped-call]


def tight(most: int) -> tuple[Network, Memory]:
    memory = Memory()
    network = Network(Tight(memory), (3, *SIZE), name="tight")
    network.prepared(("conv2",))
    network.prepared(("conv2",), "float32")
    memory.most = most
    memory.seen.clear()
    memory.made.clear()
    return network, memory


def lanes(count: int, family: DiversityGroup | None = None, **settings: Any) -> list[Lane]:
    given = {"steps": STEPS, "robustness": "standard", "update": "adam", **settings}
    return [
        Lane(
            AscentSettings.model_validate({**given, "seed": seed}),
            Channel("conv2", seed % 6),
            diversity_group=family,
        )
        for seed in range(count)
    ]


def group_of(network: Network, members: list[Lane]) -> Group:
    group = Group(GroupKey.of(network, members[0], SIZE))
    for lane in members:
        group.join(lane)
    return group


def run(network: Network, members: list[Lane]) -> list[Lane]:
    group = group_of(network, members)
    while group.lanes:
        group.step()
    return members


def assert_same(found: list[Lane], expected: list[Lane]) -> None:
    """To the bit: slices change nothing."""
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.finished_image, other.finished_image)
        assert one.curve == other.curve


def test_a_group_too_large_is_stepped_in_slices_and_nobody_fails() -> None:
    network, memory = tight(most=3)
    found = run(network, lanes(10))
    assert [lane.error for lane in found] == [None] * 10
    assert memory.seen[-5:] == [2] * 5  # five slices a step
    assert_same(found, run(tight(10)[0], lanes(10)))


def test_slices_are_the_same_to_the_bit_as_groups_of_that_size() -> None:
    """The draws of a failed attempt are used again: no generator, curve or average has moved on."""
    network, _ = tight(most=2)
    sliced = run(network, lanes(4))
    pairs = [*run(tight(4)[0], lanes(4)[:2]), *run(tight(4)[0], lanes(4)[2:])]
    for lane, expected in zip(sliced, pairs, strict=True):
        assert lane.image is not None
        assert expected.image is not None
        assert lane.curve == expected.curve
        assert torch.equal(lane.image, expected.image)
        assert torch.equal(lane.generator.get_state(), expected.generator.get_state())


def test_memory_that_runs_out_in_mid_run_changes_nothing_but_the_slices() -> None:
    network, memory = tight(most=8)
    members = lanes(8)
    group = group_of(network, members)
    group.step()
    group.step()
    memory.most = 4
    while group.lanes:
        group.step()
    assert memory.seen[-2:] == [4, 4]
    assert_same(members, run(tight(8)[0], lanes(8)))


def test_a_step_that_fails_for_another_reason_advances_nobody() -> None:
    network, memory = tight(most=2)
    members = lanes(4)
    group = group_of(network, members)
    group.step()
    group.step()
    before = [group.state(lane) for lane in members]

    memory.broken = True
    with pytest.raises(RuntimeError, match="a cable"):
        group.step()
    for lane, state in zip(members, before, strict=True):
        now = group.state(lane)
        assert now.curve == state.curve
        assert torch.equal(now.params, state.params)
        assert all(torch.equal(now.rule[name], state.rule[name]) for name in state.rule)
    memory.broken = False
    while group.lanes:
        group.step()
    assert_same(members, run(tight(2)[0], lanes(4)))  # the views drawn for the failed step were not lost


def test_a_lane_that_does_not_fit_alone_fails_and_says_so() -> None:
    network, memory = tight(most=4)
    members = lanes(2)
    group = group_of(network, members)
    group.step()
    memory.most = 0
    assert group.step() == members
    for lane in members:
        assert isinstance(lane.error, OutOfMemory)
        assert str(lane.error) == (
            "the memory of cpu is too small for one image of 16x16 px up to layer 'conv2', at step 1: "
            "CUDA out of memory. Tried to allocate 2.00 GiB."
        )


def test_the_engine_hands_that_error_out_and_goes_on() -> None:
    network, memory = tight(most=4)
    ask = Spec(model="tight", layer="conv2", unit=0, steps=2)
    with Engine() as engine:
        engine.submit(network, ask).result(30)
        memory.most = 0
        with pytest.raises(OutOfMemory, match="too small for one image") as raised:
            engine.submit(network, ask).result(30)
        memory.most = 4
        tickets = [engine.submit(network, ask.model_copy(update={"seed": seed})) for seed in range(12)]
        assert [ticket.result(30).result.steps_done for ticket in tickets] == [2] * 12
    assert raised.value.code == "out_of_memory"
    assert isinstance(raised.value, LaneError)


def test_a_family_stays_in_one_slice() -> None:
    """Two families of three among strangers, in slices of at most four: the same images as all at once."""

    def members() -> list[Lane]:
        kin, others = [lanes(3, DiversityGroup(1.0), seed=0) for _ in range(2)], lanes(3)
        return [lane for row in zip(kin[0], others, kin[1], strict=True) for lane in row]

    network, memory = tight(most=4)
    found = run(network, members())
    assert memory.seen[-3:] == [4, 4, 2]  # each family with one stranger; the last of them, with a copy
    assert_same(found, run(tight(9)[0], members()))


def test_a_family_too_large_for_the_device_fails_as_one_and_leaves_the_others() -> None:
    network, _ = tight(most=2)
    members = [*lanes(3, DiversityGroup(1.0)), *lanes(2)]
    run(network, members)
    assert [str(lane.error).partition(" of 16x16")[0] for lane in members[:3]] == [
        "the memory of cpu is too small for 3 images that shall differ from each other"
    ] * 3
    assert [lane.error for lane in members[3:]] == [None, None]
    assert [len(lane.curve) for lane in members] == [0, 0, 0, STEPS + 1, STEPS + 1]


def test_nothing_of_a_failed_pass_stays_in_memory() -> None:
    network, memory = tight(most=2)
    group = group_of(network, lanes(4))
    gc.disable()
    try:
        group.step()
    finally:
        gc.enable()
    assert memory.seen[-2:] == [2, 2]
    assert {made() for made in memory.made} == {None}


def test_a_limit_is_doubled_after_a_calm_while() -> None:
    found = Capacity(torch.device("cpu"))
    found.halve(9)
    assert found.limit == 4
    for _ in range(CALM_SLICES):
        found.passed(2)  # smaller than the limit: says nothing
    assert found.limit == 4
    for _ in range(CALM_SLICES):
        found.passed(4)
    assert found.limit == 8
    found.halve(3)
    assert found.limit == 1
    found.halve(1)
    assert found.limit == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you"
            ),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4000 bytes."), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("CUDA out of memory"), False),
    ],
)
def test_what_counts_as_memory_that_ran_out(error: Exception, expected: bool) -> None:
    assert out_of_memory(error) is expected


def test_the_allocator_of_the_cpu_is_understood() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(raised.value)


def test_how_many_lanes_fit_is_told_by_what_each_takes() -> None:
    found = Capacity(torch.device("cpu"))
    assert found.fits(1000) is None
    found.observe(1, 300)
    assert found.fits(3000) == int(capacity.SHARE * 3000 / 300)
    found.observe(11, 1300)  # 100 a lane, and 200 that all share
    assert found.fits(3000) == int((capacity.SHARE * 3000 - 200) / 100)
    found.observe(5, 999)  # between the two: teaches nothing
    assert found.fits(3000) == int((capacity.SHARE * 3000 - 200) / 100)
    assert found.fits(0) == 1


def test_on_the_cpu_there_is_nothing_to_measure() -> None:
    found = Capacity(torch.device("cpu"))
    with found.watched(3):
        pass
    assert found.fits(1 << 30) is None
    assert found.lanes(before=16) == 16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_first_step_tells_how_many_lanes_fit() -> None:
    network = Network(Small(), (3, *SIZE), name="small", device="cuda")
    group = Group(GroupKey.of(network, lanes(1)[0], SIZE))
    assert group.capacity.lanes(before=16) == 16
    for lane in lanes(4):
        group.join(lane)
        group.step()
    assert group.capacity.lanes(before=16) == MOST_LANES  # a small network on a large device
