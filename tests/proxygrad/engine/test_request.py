"""Several images of one question: begun and stepped together, and compared with plain ascent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from proxygrad.engine.checkpoint import Checkpoint
from proxygrad.engine.engine import Engine
from proxygrad.engine.request import RenderRequest
from proxygrad.errors import CheckpointMismatch
from proxygrad.images import decode_png
from proxygrad.models import Catalog
from proxygrad.networks.network import Network
from proxygrad.optim.regularizers import similarity
from proxygrad.spec import Result, Spec
from proxygrad.spec.settings import MAX_SEED
from tests.support.engine_requests import ENDLESS, ask, until
from tests.support.networks import small


@pytest.fixture(scope="module")
def digits() -> Network:
    return Catalog.from_file(None).load("digits")


def test_images_are_those_of_the_seeds_and_the_best_of_them_is_the_result(digits: Network) -> None:
    spec = Spec(model="digits", layer="layer3", unit=7, steps=16, seed=5, images=3)
    with Engine() as engine:
        whole = engine.submit(digits, spec).result(60)
        singles = [
            engine.submit(digits, spec.model_copy(update={"images": 1, "seed": seed})).result(60)
            for seed in (5, 6, 7)
        ]
    result = whole.result
    assert [(image.role, image.seed) for image in result.images] == [
        ("proxygrad", seed) for seed in (5, 6, 7)
    ]
    for image, single in zip(result.images, singles, strict=True):
        assert image.start_activation == single.result.start_activation
        assert image.curve == pytest.approx(single.result.curve, rel=1e-3, abs=1e-5)  # rounding by batch size
        assert image.steps_done == 16
    achieved = [image.achieved_activation for image in result.images]
    assert result.best == achieved.index(max(achieved))
    assert result.achieved_activation == max(achieved)
    assert result.curve == result.images[result.best].curve
    assert whole.png == whole.images[result.best]
    for png, value in zip(whole.images, achieved, strict=True):
        read = digits.read(decode_png(png).unsqueeze(0), ["layer3"])["layer3"]
        assert float(read[0, 7].mean()) == pytest.approx(value, rel=1e-6)
    assert (result.baseline, result.baseline_activation) == (None, None)


def test_a_request_for_a_margin_lifts_its_logit_above_the_others(digits: Network) -> None:
    spec = Spec(model="digits", layer="fc", unit=3, objective="margin", preset="max", steps=16)
    with Engine() as engine:
        rendering = engine.submit(digits, spec).result(60)
    logits = digits.read(decode_png(rendering.png).unsqueeze(0), ["fc"])["fc"][0].tolist()
    result = rendering.result
    assert result.achieved_activation == pytest.approx(logits[3] - max(logits[:3] + logits[4:]), rel=1e-6)
    assert result.achieved_activation > 0 > result.start_activation
    assert (result.rank, result.rank_of, result.spec.objective) == (1, 10, "margin")


def test_a_request_for_the_authors_settings_is_measured_by_its_highest_quarter(digits: Network) -> None:
    """Slope schedule, whitened steps and the objective `top_quarter`, with a baseline of plain slope 0."""
    spec = Spec(
        model="digits",
        layer="layer3",
        unit=7,
        objective="top_quarter",
        preset="max",
        update="whitened",
        slope=1.0,
        slope_end=0.01,
        slope_hold=0.2,
        slope_end_at=0.3,
        steps=16,
        compare=True,
    )
    with Engine() as engine:
        rendering = engine.submit(digits, spec).result(60)
    result = rendering.result
    best = rendering.images[result.best or 0]
    (read,) = digits.read(decode_png(best).unsqueeze(0), ["layer3"])["layer3"]
    highest = read.flatten(1).sort(descending=True).values[:, : -(-read[0].numel() // 4)].mean(dim=1)
    assert result.achieved_activation == pytest.approx(float(highest[7]), rel=1e-6)
    assert result.rank == 1 + int((highest > highest[7]).sum())
    assert result.baseline_activation is not None
    plain = spec.completed().baseline().model_copy(update={"compare": False})
    assert Spec.model_validate(plain.model_dump()) == plain


def test_diversity_leads_images_away_from_each_other(digits: Network) -> None:
    def alike(diversity: float) -> float:
        spec = Spec(model="digits", layer="layer3", unit=7, steps=32, images=4, diversity=diversity)
        images = engine.submit(digits, spec).result(60).images
        read = digits.read(torch.stack([decode_png(png) for png in images]), ["layer3"])
        return float(similarity(read["layer3"]))

    with Engine() as engine:
        assert alike(0.5) < alike(0.0) - 0.05


def test_the_baseline_is_the_plain_run_bit_for_bit_in_a_batch_of_the_same_size(digits: Network) -> None:
    spec = Spec(model="digits", layer="layer3", unit=7, steps=24, slope_end=0.02)
    plain = spec.baseline()
    assert (plain.slope, plain.slope_end, plain.seed) == (0.0, None, 0)
    engine = Engine()
    both = [engine.submit(digits, each) for each in (spec, plain)]  # one group: neither has begun
    with engine:
        own, apart = (ticket.result(60) for ticket in both)
        compared = engine.submit(digits, spec.model_copy(update={"compare": True})).result(60)
    assert compared.images == (own.png, apart.png)
    result = compared.result
    assert [image.role for image in result.images] == ["proxygrad", "baseline"]
    assert result.achieved_activation == own.result.achieved_activation
    assert result.baseline is not None
    assert result.baseline.image == 1
    assert result.baseline_activation == apart.result.achieved_activation
    assert result.images[1].curve == apart.result.curve
    assert (result.baseline.stuck, result.baseline.start_activation) == (
        apart.result.stuck,
        apart.result.start_activation,
    )


def test_the_baseline_of_several_that_differ_is_the_plain_run_of_as_many(digits: Network) -> None:
    spec = Spec(model="digits", layer="layer3", unit=7, steps=12, images=2, diversity=0.5)
    with Engine() as engine:
        compared = engine.submit(digits, spec.model_copy(update={"compare": True})).result(60).result
        apart = engine.submit(digits, spec.baseline()).result(60).result
    assert [(image.role, image.seed) for image in compared.images] == [
        *(("proxygrad", 0), ("proxygrad", 1)),
        *(("baseline", 0), ("baseline", 1)),
    ]
    for image, plain in zip(compared.images[2:], apart.images, strict=True):
        assert image.curve == pytest.approx(plain.curve, rel=1e-3, abs=1e-5)
    assert compared.baseline_activation == pytest.approx(apart.achieved_activation, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"diversity": 0.5}, r"diversity 0.5 with images 1: .* valid: images 2 to 16, or diversity 0"),
        ({"images": 17}, "less than or equal to 16"),
        ({"images": 0}, "greater than or equal to 1"),
        ({"images": 2, "diversity": -0.1}, "greater than or equal to 0"),
        ({"images": 2, "seed": MAX_SEED}, f"seed {MAX_SEED} with images 2 goes beyond the largest seed"),
        ({"compare": True, "slope": 0}, "compare true with slope 0: .* valid: a slope above 0"),
        ({"compare": True, "slope": 0, "slope_end": 0}, "compare true with slope 0"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ask(**settings)


def test_a_slope_that_begins_at_0_can_be_compared() -> None:
    assert ask(compare=True, slope=0, slope_end=0.1).lanes == 2


def midway(engine: Engine, network: Network, spec: Spec) -> Checkpoint:
    """A checkpoint of a run; of another, where that one has ended sooner than it was asked."""
    while True:
        ticket = engine.submit(network, spec)
        until(lambda running=ticket: running.progress.step >= 5)  # type: ignore[misc]
        taken = ticket.checkpoint()
        ticket.cancel()
        if taken is not None:
            return taken


def test_a_checkpoint_holds_every_image_and_goes_on_bit_for_bit() -> None:
    network, spec = small(), ask(steps=60, images=2, diversity=0.3, compare=True, update="adam")
    with Engine() as engine:
        whole = engine.submit(network, spec).result(60)
        taken = midway(engine, network, spec)
        assert (len(taken.states), {len(state.curve) for state in taken.states.values()}) == (
            4,
            {taken.step + 1},
        )
        again = engine.submit(network, spec, checkpoint=taken.to_bytes())
        rendering = again.result(60)
        with pytest.raises(CheckpointMismatch, match="compare True; here it is False"):
            engine.submit(network, ask(steps=60, update="adam"), checkpoint=taken.to_bytes())
    assert rendering.images == whole.images
    assert [image.curve for image in rendering.result.images] == [
        image.curve for image in whole.result.images
    ]


def test_a_checkpoint_with_lanes_missing_is_refused() -> None:
    network, spec = small(), ask(steps=ENDLESS, images=3)
    with Engine() as engine:
        ticket = engine.submit(network, spec)
        until(lambda: ticket.progress.step > 0)
        taken = ticket.checkpoint()
    assert taken is not None
    object.__setattr__(taken, "states", {number: taken.states[number] for number in (0, 1)})
    with pytest.raises(CheckpointMismatch, match=r"holds images \[0, 1\] after .* this request has 3"):
        Engine().submit(network, spec, checkpoint=taken.to_bytes())


def test_progress_is_that_of_the_highest_image_asked_for() -> None:
    request = RenderRequest(small(), ask(images=2, compare=True).resolve(small().info))
    request.prepare("float32")
    for lane, value in zip(request.lanes, (1.0, 3.0, 9.0, 2.0), strict=True):
        lane.curve.append(value)
    assert request.leading is request.lanes[1]
    assert request.lane_error is None
    request.follow()
    assert (request.progress.step, request.progress.activation) == (0, 3.0)


def test_the_cost_and_the_id_count_all_images() -> None:
    info = small().info
    assert ask(images=4, compare=True).cost(info) == 8 * ask().cost(info)
    ids = {
        ask(**each).identity(info)
        for each in ({}, {"images": 2}, {"compare": True}, {"images": 2, "diversity": 0.1})
    }
    assert len(ids) == 4
    assert ask(images=1, diversity=0.0, compare=False).identity(info) == ask().identity(info)


def test_what_newer_versions_say_more_is_left_out_of_a_result_and_old_ones_load() -> None:
    with Engine() as engine:
        result = engine.submit(small(), ask(images=2, steps=2)).result(30).result
    told = result.model_dump(mode="json")
    newer = {**told, "hue": 1, "spec": {**told["spec"], "hue": 2}}
    newer["images"] = [{**image, "hue": 3} for image in told["images"]]
    assert Result.model_validate(newer) == result
    older = {name: value for name, value in told.items() if name not in ("best", "images", "baseline")}
    for name in ("images", "diversity", "compare"):
        older["spec"] = {key: value for key, value in older["spec"].items() if key != name}
    loaded = Result.model_validate(older)
    assert (loaded.images, loaded.best, loaded.baseline) == ((), 0, None)
    assert loaded.image(0).achieved_activation == result.achieved_activation
    assert Result.model_json_schema()["additionalProperties"] is False
    with pytest.raises(ValidationError):
        ask(hue=1)
