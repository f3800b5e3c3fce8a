"""Several images of one question as lanes: they end together, alone or in slices where room is short."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import pytest
from torch import Tensor

from proxygrad.engine.engine import Engine
from proxygrad.engine.lane import Lane
from proxygrad.engine.step import AscentStep, StepEvaluation
from proxygrad.errors import DeadlineExceeded, LaneError, OutOfMemory, RenderCanceled
from proxygrad.networks.batching import Batching
from proxygrad.networks.network import Network
from proxygrad.spec import Spec
from proxygrad.transforms import Draw
from tests.proxygrad.engine.test_capacity import tight
from tests.proxygrad.networks.discovery.test_layers import Tokens
from tests.support.engine_requests import ENDLESS, ask, until
from tests.support.networks import small


@pytest.mark.parametrize("ending", ["cancel", "deadline"])
def test_all_lanes_are_stopped_together_and_leave_the_neighbor(ending: str) -> None:
    network = small()
    with Engine() as engine:
        ticket = engine.submit(network, ask(steps=ENDLESS, images=3, compare=True))
        other = engine.submit(network, ask(steps=ENDLESS))
        until(lambda: ticket.progress.step > 0 and other.progress.step > 0)
        if ending == "cancel":
            ticket.cancel()
        else:
            ticket.extend_deadline(0)
        with pytest.raises((RenderCanceled, DeadlineExceeded)):
            ticket.result(30)
        step = other.progress.step
        until(lambda: other.progress.step > step + 2)
        assert len(engine._running) == 1


def test_one_image_that_fails_fails_all_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    armed, note = threading.Event(), Lane.note

    def spoilt(self: Lane, activation: float, steepest: float, image: Tensor) -> None:
        lost = armed.is_set() and self.settings.seed == 5
        note(self, math.nan if lost else activation, steepest, image)

    monkeypatch.setattr(Lane, "note", spoilt)
    network, engine = small(), Engine()
    first = engine.submit(network, ask(steps=ENDLESS))
    ticket = engine.submit(network, ask(steps=ENDLESS, images=2, seed=4))
    with engine:
        until(lambda: ticket.progress.step > 0)
        armed.set()
        with pytest.raises(LaneError, match=r"image 1 of 2 \(proxygrad, seed 5\): .*activation nan"):
            ticket.result(30)
        step = first.progress.step
        until(lambda: first.progress.step > step + 2)


def test_a_request_for_the_lanes_that_are_left_and_more_is_not_passed_by() -> None:
    network, engine = small(), Engine(max_lanes=2)
    running = engine.submit(network, ask(steps=ENDLESS))
    both = engine.submit(network, ask(images=2, steps=4))
    late = engine.submit(network, ask(seed=1))
    with engine:
        until(lambda: running.progress.step > 3)
        assert (both.progress.step, late.progress.step) == (0, 0)  # the one lane left is kept free for it
        running.cancel()
        assert len(both.result(30).images) == 2
        assert late.result(30).result.steps_done == 8


def test_more_images_than_lanes_go_on_beside_others_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = list[int]()
    evaluate = AscentStep.evaluate

    def seen(
        self: AscentStep, lanes: Sequence[Lane], params: Tensor, draws: Sequence[Draw], batches: Sequence[int]
    ) -> StepEvaluation:
        sizes.append(len(lanes))
        return evaluate(self, lanes, params, draws, batches)

    monkeypatch.setattr(AscentStep, "evaluate", seen)
    network, engine = small(), Engine(max_lanes=2)
    large = engine.submit(network, ask(images=5, steps=ENDLESS))
    second = engine.submit(network, ask(images=3, steps=4))  # waits for the large one alone
    with engine:
        for seed in range(3):
            assert engine.submit(network, ask(seed=seed)).result(30).result.steps_done == 8
        until(lambda: large.progress.step > 1)
        assert (large.wait(0), second.progress.step) == (False, 0)
        large.cancel()
        assert len(second.result(30).images) == 3
    assert max(sizes) == 2


def test_images_in_slices_are_those_that_are_stepped_at_once() -> None:
    network, spec = small(), ask(images=5, compare=True)
    found = []
    for most in (3, 10):
        with Engine(max_lanes=most) as engine:
            found.append(engine.submit(network, spec).result(30).result.images)
    assert found[0] == found[1]


def test_memory_that_holds_fewer_images_makes_smaller_slices_of_the_same_images() -> None:
    network, memory = tight(100)
    roomy, _ = tight(100)
    spec = ask(images=3, compare=True, diversity=0.4)
    with Engine(precision="float32") as engine:
        expected = engine.submit(roomy, spec).result(30).result
        memory.most = 3  # a family at a time
        result = engine.submit(network, spec).result(30).result
        memory.most = 2
        with pytest.raises(OutOfMemory, match=r"image 0 of 6 .*too small for 3 images that shall differ"):
            engine.submit(network, spec).result(30)
        parted = engine.submit(network, ask(images=3, compare=True)).result(30).result
    for image, other in zip(result.images, expected.images, strict=True):
        assert image.curve == pytest.approx(other.curve, rel=1e-3, abs=1e-5)
    assert [image.role for image in parted.images] == ["proxygrad"] * 3 + ["baseline"] * 3


def test_networks_without_the_batch_in_front_take_several_images_too() -> None:
    network = Network(Tokens(batch_first=False).eval(), (3, 16, 16), name="tokens")
    assert network.batching == Batching(folded=True)
    layer = next(each.name for each in network.info.layers if each.kind == "tokens")
    spec = Spec(model="tokens", layer=layer, unit=1, steps=4)
    with Engine() as engine:
        alone = engine.submit(network, spec).result(60).result
        result = (
            engine.submit(network, spec.model_copy(update={"images": 2, "compare": True})).result(60).result
        )
        several = spec.model_copy(update={"images": 2, "diversity": 0.5})
        apart = engine.submit(network, several).result(60).result
    assert result.images[0].curve == pytest.approx(alone.curve, rel=1e-5)
    assert len(result.images) == 4
    assert [image.curve[0] for image in apart.images] == pytest.approx(
        [image.curve[0] for image in result.images[:2]], rel=1e-5
    )
    assert apart.images[1].curve[1:] != pytest.approx(result.images[1].curve[1:], rel=1e-5)
