"""Whether images may be run together, and why not. `tests/corpus` has the networks and what comes of them."""

from __future__ import annotations

import random
import re
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from proxygrad import Channel, Network, maximize
from proxygrad.errors import NetworkError
from proxygrad.networks.network import DRAWS
from tests.corpus.batches import ALONE, FOLDED
from tests.corpus.case import Net
from tests.support.networks import Small, small


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("minibatch deviation", "at layer 'fc' the images of a batch influence each other"),
        ("one image", r"it fails on 4 images at a time \(RuntimeError: .*\)"),
        ("first image", "layer '.*' returns 1 entries for 4 images"),
        ("by the brightest", "layer '.*' returns something else for an image alone"),
        (
            "noise of the place",
            "layer 'conv' returns something else for an image in another place of the batch",
        ),
        ("dropping", "it draws random numbers"),
        ("shuffled batch", "it draws random numbers"),
        ("noisy where bright", "it draws random numbers"),
    ],
)
def test_the_reason_is_given(name: str, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "proxygrad")
    network = Network(ALONE[name].build(torch.relu), (3, 12, 12), name="odd")
    assert network.batching.alone
    assert re.fullmatch(reason, network.batching.alone)
    assert f"odd: images are run one by one: {network.batching.alone}" in caplog.messages


@pytest.mark.parametrize("name", [*ALONE, *FOLDED])
def test_a_batch_that_is_read_is_its_images_one_by_one(name: str) -> None:
    network = Network({**ALONE, **FOLDED}[name].build(torch.relu), (3, 12, 12))
    images = torch.rand((3, 3, 12, 12), generator=torch.Generator().manual_seed(0))
    together = network.activations(images, "output")
    each = torch.cat([network.activations(image, "output") for image in images.split(1)])
    torch.testing.assert_close(together, each)


class Counting(Net):
    """Another answer each time."""

    def __init__(self) -> None:
        super().__init__(torch.relu)
        self.calls = 0

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        return super().forward(x) * (1 + self.calls / 10)


def test_a_network_that_returns_something_else_each_time_is_refused() -> None:
    with pytest.raises(NetworkError, match="returns something else for the same image each time"):
        maximize(Network(Counting(), (3, 12, 12)), "output:1", steps=2)


class OwnGenerator(Net):
    def __init__(self) -> None:
        super().__init__(torch.relu)
        self.state = [torch.Generator().manual_seed(0).get_state()]

    def forward(self, x: Tensor) -> Any:
        generator = torch.Generator()
        generator.set_state(self.state[0])
        noise = torch.rand(x.shape[1:], generator=generator)
        self.state[0] = generator.get_state()
        return super().forward(x + noise)


def test_so_is_one_with_a_generator_of_its_own() -> None:
    with pytest.raises(NetworkError, match="returns something else for the same image each time"):
        maximize(Network(OwnGenerator(), (3, 12, 12)), "output:1", steps=2)


@pytest.mark.parametrize("source", ["torch", "python", "numpy"])
def test_random_numbers_of_any_source_are_noticed(source: str) -> None:
    draw: Callable[[], float] = {
        "torch": lambda: float(torch.rand(())),
        "python": random.random,
        "numpy": lambda: float(np.random.rand()),
    }[source]

    class Drawing(Net):
        def forward(self, x: Tensor) -> Any:
            shifted: Tensor = x + draw()
            return super().forward(shifted)

    network = Network(Drawing(torch.relu), (3, 12, 12))
    first, second = (maximize(network, "output:1", steps=3) for _ in range(2))
    assert first.curve == second.curve
    assert torch.equal(first.image, second.image)


def test_lanes_of_a_folded_network_share_an_evaluation_where_they_share_a_slope() -> None:
    runs = list[int]()

    class Seen(FOLDED["mirror images"].build):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Any:
            runs.append(len(x))
            return super().forward(x)

    network = Network(Seen(torch.relu), (3, 12, 12))
    asked: Any = ["output:0", "output:1", "output:2", "output:3"]
    maximize(network, asked, slope=[0.1, 0.2, 0.1, 0.2], steps=1)
    runs.clear()
    maximize(network, asked, slope=[0.1, 0.2, 0.1, 0.2], steps=1)
    assert runs.count(2) == 4, "two slopes, two evaluations"


def test_usual_networks_are_run_together() -> None:
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.MaxPool2d(2), nn.Flatten(), nn.GELU())
    for module in (Small(), pooled):
        network = Network(module, (3, 16, 16))
        assert not network.batching.alone
        assert not network.batching.folded


def test_images_are_led_apart_in_a_network_that_takes_one_at_a_time() -> None:
    network = Network(ALONE["one image"].build(torch.relu), (3, 12, 12))
    layer = Channel("conv2", 1)
    own, led = (
        [each.image for each in maximize(network, layer, images=2, steps=4, diversity=weight)]
        for weight in (0.0, 2.0)
    )
    assert float((led[0] - led[1]).abs().mean()) > float((own[0] - own[1]).abs().mean())


def test_what_another_thread_draws_is_not_taken_for_the_network_s() -> None:
    stop = threading.Event()

    def draw() -> None:
        while not stop.wait(0.001):
            torch.rand(1)

    other = threading.Thread(target=draw)
    other.start()
    try:
        found = [small().batching.alone for _ in range(2)]
    finally:
        stop.set()
        other.join()
    assert found == [""] * 2


class Drawing(Net):
    """Calls ``draw`` on its way, in a thread of its own where ``aside``."""

    def __init__(self, draw: Callable[[], object], aside: bool) -> None:
        super().__init__(torch.relu)
        self._draw = draw
        self._aside = aside

    def forward(self, x: Tensor) -> Any:
        if self._aside:
            thread = threading.Thread(target=self._draw)
            thread.start()
            thread.join()
        else:
            self._draw()
        return super().forward(x)


@pytest.mark.parametrize(
    "draw",
    [random.random, lambda: random.uniform(0, 1), lambda: random.shuffle([1, 2, 3]), lambda: torch.rand(1)],
    ids=["random", "uniform", "shuffle", "torch"],
)
def test_what_other_threads_draw_is_not_the_network_s(draw: Callable[[], object]) -> None:
    """As a thread that waits to connect to Redis again does, while another one loads a model."""
    assert Network(Drawing(draw, aside=False), (3, 12, 12)).batching.alone == DRAWS
    assert Network(Drawing(draw, aside=True), (3, 12, 12)).batching.alone != DRAWS


def test_python_s_numbers_are_seen_under_a_profiler_too() -> None:
    """The profiler stays, and sees the network."""
    seen: list[str] = []
    sys.setprofile(lambda frame, event, function: seen.append(frame.f_code.co_name))
    try:
        network = Network(Drawing(random.random, aside=False), (3, 12, 12))
    finally:
        sys.setprofile(None)
    assert network.batching.alone == DRAWS
    assert "forward" in seen
