"""The engine's thread: batches what fits together, cancels, fails one without the others, and closes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from proxygrad.engine.capacity import Capacity
from proxygrad.engine.engine import Engine
from proxygrad.engine.group import Group
from proxygrad.engine.rendering import measure
from proxygrad.errors import (
    LaneError,
    NetworkError,
    PositionOutOfRange,
    RenderCanceled,
    SizeUnsupported,
    UnitOutOfRange,
)
from proxygrad.images import decode_png
from proxygrad.networks.network import Network
from proxygrad.objectives.units import Neuron
from proxygrad.spec import Spec
from tests.support.engine_requests import ENDLESS, until
from tests.support.networks import Small, small


def ask(**settings: object) -> Spec:
    return Spec.model_validate({"model": "small", "layer": "conv2", "unit": 0, "steps": 8, **settings})


def test_the_achieved_activation_is_that_of_the_delivered_bytes() -> None:
    network = small()
    with Engine() as engine:
        rendering = engine.submit(network, ask(unit=5, objective="neuron")).result(30)
    result = rendering.result
    module = Small().eval()
    with torch.no_grad():
        activation = module.conv2(torch.relu(module.bn(module.conv(decode_png(rendering.png).unsqueeze(0)))))
    assert result.achieved_activation == pytest.approx(float(activation[0, 5, 4, 4]), rel=1e-6)
    assert result.achieved_activation > result.start_activation
    assert result.spec.position == (4, 4)
    assert (result.width_px, result.height_px, result.steps_done, len(result.curve)) == (16, 16, 8, 9)
    assert result.ran_s > 0


def test_what_is_reported_is_what_was_used() -> None:
    network = small()
    with Engine() as engine:
        result = engine.submit(network, ask(size_px=24, slope=0.2, seed=9)).result(30).result
    assert result.spec == ask(size_px=24, slope=0.2, seed=9, objective="channel")
    assert (result.width_px, result.digest, result.device, result.dtype) == (
        24,
        network.info.digest,
        "cpu",
        "float32",
    )


@pytest.mark.parametrize("channels", [2, 4])
def test_images_that_have_no_png_are_refused_at_once(channels: int) -> None:
    network = Network(Small(channels), (channels, 16, 16), name="wide")
    with pytest.raises(NetworkError, match=rf"model 'wide' takes {channels} channels; a PNG has 1 or 3"):
        Engine().submit(network, ask())


def test_same_seed_same_bytes() -> None:
    network = small()
    with Engine() as engine:
        first, second = (engine.submit(network, ask(seed=4)).result(30).png for _ in range(2))
    assert first == second


def test_lanes_of_a_group_share_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, step = list[int](), Group.step

    def counted(group: Group, on_slice: Callable[[], None]) -> object:
        sizes.append(len(group.lanes))
        return step(group, on_slice)

    monkeypatch.setattr(Group, "step", counted)
    network, engine = small(), Engine()
    tickets = [engine.submit(network, ask(unit=unit, steps=4)) for unit in range(6)]
    with engine:
        for ticket in tickets:
            ticket.result(30)
    assert sizes == [6] * 5


def test_more_than_max_lanes_wait_their_turn() -> None:
    network = small()
    with Engine(max_lanes=2) as engine:
        results = [
            ticket.result(60).result
            for ticket in [engine.submit(network, ask(seed=seed)) for seed in range(7)]
        ]
    assert [result.spec.seed for result in results] == list(range(7))


def test_progress_rises_to_the_end() -> None:
    seen = list[int]()
    with Engine() as engine:
        ticket = engine.submit(small(), ask(steps=300))
        while not ticket.wait(0.005):
            seen.append(ticket.progress.step)
        final = ticket.progress
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
    assert final.step == 300
    assert final.activation == pytest.approx(ticket.result().result.curve[-1])


def test_cancel_frees_the_lane_and_leaves_the_neighbor() -> None:
    network = small()
    with Engine() as engine:
        endless, other = engine.submit(network, ask(steps=ENDLESS)), engine.submit(network, ask(seed=1))
        other.result(30)
        endless.cancel()
        with pytest.raises(RenderCanceled, match=r"canceled after step \d+"):
            endless.result(60)
        assert engine.submit(network, ask(seed=2)).result(30).result.spec.seed == 2


def test_cancel_before_the_first_step() -> None:
    engine = Engine()
    ticket = engine.submit(small(), ask())
    ticket.cancel()
    with engine, pytest.raises(RenderCanceled, match="before its first step"):
        ticket.result(60)


def test_bad_questions_are_refused_at_once() -> None:
    with (
        Engine() as engine,
        pytest.raises(UnitOutOfRange, match="unit 6 is out of range: layer 'conv2' has units 0 to 5"),
    ):
        engine.submit(small(), ask(unit=6))


def test_what_only_the_network_can_tell_comes_with_the_result() -> None:
    network = Network(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 11)), (3, 16, 16), name="wide")
    with Engine() as engine:
        small_image = engine.submit(network, Spec(model="wide", layer="0", unit=0, size_px=8))
        outside = engine.submit(small(), ask(size_px=8, objective="neuron", position=(4, 0)))
        fine = engine.submit(network, Spec(model="wide", layer="0", unit=0, steps=2))
        with pytest.raises(SizeUnsupported):
            small_image.result(60)
        with pytest.raises(PositionOutOfRange, match=r"rows 0 to 3"):
            outside.result(60)
        assert fine.result(60).result.steps_done == 2


def test_a_network_that_fails_in_mid_run_fails_its_lanes_and_nothing_else() -> None:
    class Fuse(Small):
        blown = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.blown:
                raise RuntimeError("blown")
            return super().forward(x)

    network = Network(Fuse(), (3, 16, 16), name="fuse")
    with Engine() as engine:
        assert engine.submit(network, ask()).result(30).result.steps_done == 8
        network.module.blown = True  # type: ignore[assignment]
        doomed = engine.submit(network, ask())
        with pytest.raises(LaneError, match="RuntimeError: blown"):
            doomed.result(60)
        assert engine.submit(small(), ask()).result(30).result.steps_done == 8


def test_bytes_do_not_depend_on_what_else_runs() -> None:
    """Alone, beside a baseline, among others, joined late, and from a checkpoint among others."""
    network = small()
    mine: dict[str, Any] = {
        "unit": 2,
        "seed": 7,
        "objective": "neuron",
        "steps": 24,
        "robustness": "standard",
    }
    with Engine() as engine:
        alone = engine.submit(network, ask(**mine)).result(30)
        compared = engine.submit(network, ask(**mine, compare=True)).result(30)
        strangers = [ask(unit=seed % 6, seed=seed, slope=seed / 15, steps=40 + seed) for seed in range(7)]
        others = [engine.submit(network, each) for each in strangers]
        until(lambda: others[0].progress.step > 2)
        late = engine.submit(network, ask(**mine))
        taken = late.checkpoint()
        among = late.result(30)
        for other in others:
            other.result(30)
    assert compared.result.baseline is not None
    found = [among, compared]
    if taken is not None:
        with Engine() as engine:
            more = [engine.submit(network, each) for each in strangers[:2]]
            found.append(engine.submit(network, ask(**mine), checkpoint=taken.to_bytes()).result(30))
            for other in more:
                other.result(30)
    assert {each.images[0] for each in found} == {alone.png}
    assert {each.result.image(0).curve for each in found} == {alone.result.curve}
    threads = torch.get_num_threads()
    assert alone.result.kernels.startswith(f"torch {torch.__version__.partition('+')[0]}, ")
    assert alone.result.kernels.endswith(f", {threads} thread{'s' if threads > 1 else ''}")


def test_a_group_that_is_full_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA, where free memory bounds each group: here by hand, to two lanes."""
    monkeypatch.setattr(Capacity, "lanes", lambda capacity, before: 2)
    first, second, engine = small(), small(), Engine()
    endless = [engine.submit(first, ask(steps=ENDLESS, seed=seed)) for seed in range(4)]
    other = engine.submit(second, ask())
    with engine:
        assert other.result(30).result.steps_done == 8
        assert [ticket.progress.step > 0 for ticket in endless] == [True, True, False, False]
        endless[0].cancel()
        endless[3].cancel()  # it waits; the third goes first anyhow
        until(lambda: endless[2].progress.step > 0)


def test_a_full_group_is_asked_once_a_pass_however_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, passes = list[int](), list[int]()
    full, admit = Group.full, Engine._admit
    monkeypatch.setattr(Capacity, "lanes", lambda capacity, before: 2)

    def counted_full(group: Group, at_first: int, joining: int) -> bool:
        asked.append(joining)
        return full(group, at_first, joining)

    def counted_admit(engine: Engine) -> None:
        passes.append(1)
        admit(engine)

    monkeypatch.setattr(Group, "full", counted_full)
    monkeypatch.setattr(Engine, "_admit", counted_admit)
    network, engine = small(), Engine()
    tickets = [engine.submit(network, ask(steps=ENDLESS, seed=seed)) for seed in range(12)]
    with engine:
        until(lambda: tickets[0].progress.step >= 20)
    assert len(asked) <= len(passes) + 1  # in the first pass also by the second, which fits


def test_what_stalls_is_told_apart_from_what_rests() -> None:
    going, standing = threading.Event(), threading.Event()

    class Hanging(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if armed.is_set():
                standing.set()
                going.wait(60)
            return super().forward(x)

    armed = threading.Event()
    network, engine = Network(Hanging(), (3, 16, 16), name="hanging"), Engine()
    assert engine.stalled_s == 0.0
    with engine:
        engine.submit(network, ask()).result(30)
        time.sleep(1.0)
        assert engine.stalled_s == 0.0
        armed.set()
        ticket = engine.submit(network, ask())
        assert engine.stalled_s < 0.9  # the rest before does not count
        assert standing.wait(60)
        time.sleep(0.2)
        with engine._changed:  # whatever anybody holds
            found = list[float]()
            reader = threading.Thread(target=lambda: found.append(engine.stalled_s))
            reader.start()
            reader.join(60)
        assert found[0] >= 0.2
        going.set()
        ticket.result(30)
        until(lambda: engine.stalled_s == 0.0)


def test_closing_ends_every_ticket() -> None:
    network, engine = small(), Engine(max_lanes=1).start()
    tickets = [engine.submit(network, ask(steps=ENDLESS, seed=seed)) for seed in range(3)]
    engine.close()
    for ticket in tickets:
        with pytest.raises(RenderCanceled, match="closed"):
            ticket.result(60)
    with pytest.raises(RenderCanceled, match="closing"):
        engine.submit(network, ask())
    assert "proxygrad-engine" not in [thread.name for thread in threading.enumerate()]


def test_measure_is_the_network_alone() -> None:
    network = small()
    image = torch.rand((3, 16, 16), generator=torch.Generator().manual_seed(0))
    expected = network.activations(image.unsqueeze(0), "relu")[0, 3, 1, 2]
    assert measure(network, Neuron("relu", 3, (1, 2)), image) == pytest.approx(float(expected))
