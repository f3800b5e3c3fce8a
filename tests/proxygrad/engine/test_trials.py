"""Several starts of one image: the best goes on, the others leave, whatever happens in between."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from proxygrad import Engine, Spec
from proxygrad.engine.checkpoint import Checkpoint
from proxygrad.engine.group import Group
from proxygrad.engine.lane import Lane, Trial
from proxygrad.engine.rendering import start_results
from proxygrad.engine.request import RenderRequest
from proxygrad.errors import CheckpointMismatch, LaneError
from proxygrad.optim.update_rules import rate
from tests.proxygrad.engine.test_checkpoint import NETWORK

STEPS, TRIAL, STARTS = 12, 4, 3


def ask(**settings: Any) -> Spec:
    defaults = {"model": "m", "layer": "relu", "unit": 2, "preset": "max", "steps": STEPS, "starts": STARTS}
    return Spec.model_validate({**defaults, "trial_steps": TRIAL, **settings}).resolve(NETWORK.info)


def begin(spec: Spec, checkpoint: Checkpoint | None = None) -> tuple[Group, RenderRequest]:
    request = RenderRequest(NETWORK, spec, checkpoint=checkpoint)
    group = Group(request.prepare("float32"))
    for lane, state in zip(request.lanes, request.states, strict=True):
        group.join(lane, state)
    return group, request


def finish(group: Group) -> None:
    while group.lanes:
        group.step()


def alone(seed: int, steps: int = TRIAL) -> Lane:
    """One start by itself, for as many steps as the trial has."""
    group, request = begin(ask(starts=1, trial_steps=None, steps=steps, seed=seed))
    finish(group)
    return request.lanes[0]


def test_the_best_start_goes_on_and_the_others_leave() -> None:
    group, request = begin(ask())
    every = request.lanes
    for done in range(STEPS + 1):
        assert len(group.lanes) == (STARTS if done <= TRIAL else 1)
        group.step()
    (winner,) = request.lanes
    scores = [max(alone(seed).curve) for seed in range(STARTS)]
    assert winner.trial is not None
    assert winner.trial.scores == pytest.approx(scores, rel=1e-4)
    assert every.index(winner) == scores.index(max(scores))
    assert (len(winner.curve), winner.ended, [lane.dropped for lane in every].count(True)) == (
        STEPS + 1,
        True,
        STARTS - 1,
    )


def test_steps_fall_to_0_in_the_trial_and_begin_anew_after_it() -> None:
    (lane,) = begin(ask(starts=2))[1].lanes[:1]
    seen = []
    for _ in range(STEPS):
        lane.curve.append(0.0)
        seen.append(lane.rate)
    size = lane.settings.step_size
    assert seen[:TRIAL] == [rate(size, step, TRIAL) for step in range(TRIAL)]
    assert seen[TRIAL:] == [rate(size, step, STEPS - TRIAL) for step in range(STEPS - TRIAL)]


def test_each_image_chooses_among_seeds_of_its_own() -> None:
    with Engine() as engine:
        result = engine.submit(NETWORK, ask(images=2, seed=10, compare=True)).result(60).result
        single = engine.submit(NETWORK, ask(seed=13)).result(60).result
    assert [[start.seed for start in image.starts] for image in result.images] == [
        [10, 11, 12],
        [13, 14, 15],
    ] * 2
    for image in result.images:
        assert [start.seed for start in image.starts if start.chosen] == [image.seed]
        best = max(start.activation for start in image.starts if start.activation is not None)
        assert [start.activation for start in image.starts if start.chosen] == [best]
    assert [image.role for image in result.images] == ["proxygrad"] * 2 + ["baseline"] * 2
    assert single.images == ()
    assert single.image(0).seed == result.images[1].seed


@pytest.mark.parametrize("evaluations", [0, 2, TRIAL + 1, TRIAL + 3])
def test_a_checkpoint_resumes_to_the_bit_in_the_trial_and_after_it(evaluations: int) -> None:
    spec = ask(update="adam", images=2)
    group, whole = begin(spec)
    finish(group)
    group, request = begin(spec)
    for _ in range(evaluations):
        group.step()
    states = {number: group.state(lane) for number, lane in request.numbered_lanes}
    taken = Checkpoint.from_bytes(Checkpoint.of(spec, NETWORK.info, states, 1.0).to_bytes())
    taken.check(spec, NETWORK.info)
    group, resumed = begin(spec, taken)
    finish(group)
    assert len(whole.lanes) == 2
    for lane, again in zip(whole.lanes, resumed.lanes, strict=True):
        assert (lane.curve, lane.settings.seed) == (again.curve, again.settings.seed)
        assert torch.equal(lane.finished_image, again.finished_image)
        assert lane.trial is not None
        assert again.trial is not None
        assert lane.trial.scores == again.trial.scores


@pytest.mark.parametrize(
    ("evaluations", "kept"),
    [(2, [0, 1, 2]), (TRIAL + 2, [0, 1, 4]), (TRIAL + 2, [0]), (2, [0, 1, 2, 3, 4, 7])],
    ids=["an image is missing", "not chosen", "one image", "no such lane"],
)
def test_a_checkpoint_with_other_lanes_than_can_be_left_is_refused(evaluations: int, kept: list[int]) -> None:
    spec = ask(images=2)
    group, request = begin(spec)
    state = None
    for _ in range(evaluations):
        group.step()
    state = group.state(request.lanes[0])
    taken = Checkpoint.of(spec, NETWORK.info, dict.fromkeys(kept, state), 1.0)
    with pytest.raises(CheckpointMismatch, match=r"holds images \[0"):
        taken.check(spec, NETWORK.info)


def test_a_start_that_fails_leaves_the_others_their_chance() -> None:
    lanes = begin(ask())[1].lanes
    trial = lanes[0].trial
    assert trial is not None
    for number, lane in enumerate(lanes):
        lane.curve.extend([0.0, float(number)])
    lanes[2].error = LaneError("it is not finite")
    trial.choose()
    assert [lane.dropped for lane in lanes] == [False, False, True]
    for lane in lanes[:2]:
        lane.curve.extend([0.0] * (TRIAL - 1))
    trial.choose()
    assert [lane.dropped for lane in lanes] == [True, False, True]
    assert trial.scores == (0.0, 1.0, float("-inf"))


def test_the_only_start_left_has_a_score_too() -> None:
    group, request = begin(ask(starts=2))
    failed, kept = request.lanes
    failed.error = LaneError("it is not finite")
    finish(group)
    assert request.lanes == (kept,)
    assert kept.trial is not None
    assert kept.trial.scores == (float("-inf"), max(kept.curve[: TRIAL + 1]))
    assert [start.activation for start in start_results(kept)] == [None, kept.trial.scores[1]]


def test_where_all_fail_the_error_is_told() -> None:
    lanes = [Lane(ask(), begin(ask())[1].lanes[0].objective) for _ in range(2)]
    trial = Trial(lanes, TRIAL)
    for lane in lanes:
        lane.error = LaneError("it is not finite")
    trial.choose()
    assert [lane.dropped for lane in lanes] == [False, True]


def test_random_views_are_judged_by_the_mean_of_the_later_ones() -> None:
    lanes = begin(ask(robustness="standard", starts=2))[1].lanes
    for lane, curve in zip(lanes, ([0, 9, 9, 1, 1], [0, 0, 0, 2, 1]), strict=True):
        lane.curve.extend(map(float, curve))
    trial = lanes[0].trial
    assert trial is not None
    trial.choose()
    assert trial.scores == (1.0, 1.5)
    assert [lane.dropped for lane in lanes] == [True, False]
