"""`sample`: chains of a notebook, and the set that shows itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import proxygrad as pg
from proxygrad.errors import ChainDiverged, InvalidRequest
from tests.support.networks import small

NETWORK = small()
SHORT: dict[str, Any] = {"burn_in": 3, "thinning": 2, "progress": False}


def test_a_set_has_every_sample_and_shows_itself(tmp_path: Path) -> None:
    found = pg.sample(NETWORK, "conv2:2", chains=3, samples=2, **SHORT)
    assert isinstance(found, pg.SampleSet)
    assert found.images.shape == (3, 2, *NETWORK.input_shape)
    assert found.steps == (5, 7)
    assert found.curves.shape == (3, 8)
    last = found.activations[:, -1]
    torch.testing.assert_close(last, found.curves[:, -1], rtol=1e-4, atol=1e-5)
    assert "3 chains x 2 samples" in repr(found)
    assert found.grid().height > found.grid().width
    assert (found._repr_png_() or b"").startswith(b"\x89PNG")
    found.animation(tmp_path / "chain.webp", chain=2)
    with Image.open(tmp_path / "chain.webp") as picture:
        assert (picture.format, getattr(picture, "n_frames", 1)) == ("WEBP", 2)
    with pytest.raises(InvalidRequest, match="chain 3 is out of range; valid: 0 to 2"):
        found.animation(tmp_path / "none.webp", chain=3)


def test_several_objectives_give_a_list_and_a_seed_the_same_samples() -> None:
    both = pg.sample(
        NETWORK,
        ["conv2:2", "conv2:1"],
        chains=2,
        samples=1,
        variant="authors",
        discriminator_weight=0.0,
        **SHORT,
    )
    again = pg.sample(
        NETWORK,
        "conv2:1",
        chains=2,
        samples=1,
        variant="authors",
        discriminator_weight=0.0,
        max_lanes=1,
        **SHORT,
    )
    assert isinstance(again, pg.SampleSet)
    assert isinstance(both, list)
    first, second = both
    torch.testing.assert_close(again.images, second.images, rtol=0, atol=1e-4)
    assert not torch.equal(first.images, second.images)


def test_what_is_wrong_is_said_at_once() -> None:
    for given, message in (
        ({"steps": 9}, "unknown keyword 'steps'; valid: beta,"),
        ({"samples": 0}, "samples 0 must be a whole number, at least 1"),
        ({"temperature": -1.0}, "langevin.temperature -1.0"),
        ({"discriminator_weight": 1.0}, "has no discriminator; valid"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            pg.sample(NETWORK, "conv2:2", progress=False, **given)
        assert message in str(caught.value)
    with pytest.raises(ChainDiverged, match=r"chain 0 of 2 \(seed 0\) diverged at step 0"):
        pg.sample(NETWORK, "conv2:2", chains=2, beta=1e6, step_size=1.0, **SHORT)
    with pytest.raises(InvalidRequest, match=r"sampler 'langevin': proxygrad\.sample runs chains"):
        pg.maximize(NETWORK, "conv2:2", sampler="langevin")
