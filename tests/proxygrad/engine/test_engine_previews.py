"""What an image looks like while it is made."""

from __future__ import annotations

import pytest
import torch

from proxygrad.engine.engine import Engine
from proxygrad.engine.future import PREVIEW_PX
from proxygrad.images import decode_png
from proxygrad.networks.network import Network
from tests.support.engine_requests import ENDLESS, ask, until
from tests.support.networks import Small, small
from tests.support.slow_network import slow


def test_a_preview_is_a_small_picture_of_the_best_image_so_far() -> None:
    network, pace = slow()
    with Engine() as engine:
        pace.going.clear()  # not even begun
        ticket = engine.submit(network, ask(steps=ENDLESS, size_px=200))
        assert ticket.preview() is None
        pace.going.set()
        until(lambda: ticket.preview() is not None)
        first = ticket.preview()
        until(lambda: ticket.preview() != first)
        later = ticket.preview()
        ticket.cancel()
    assert later is not None
    assert decode_png(later).shape == (3, PREVIEW_PX, PREVIEW_PX)


@pytest.mark.parametrize("robustness", ["none", "standard"])
def test_the_last_preview_is_the_image_itself_where_that_is_small(robustness: str) -> None:
    with Engine() as engine:
        ticket = engine.submit(small(), ask(robustness=robustness))
        rendering = ticket.result(60)
    preview = ticket.preview()
    assert preview is not None
    assert torch.equal(decode_png(preview), decode_png(rendering.png))


def test_previews_keep_the_shape_of_images_that_are_not_square() -> None:
    network = Network(Small(), (3, 40, 320), name="wide")
    with Engine() as engine:
        ticket = engine.submit(network, ask(steps=2))
        ticket.result(60)
    preview = ticket.preview()
    assert preview is not None
    assert decode_png(preview).shape == (3, 16, 128)
