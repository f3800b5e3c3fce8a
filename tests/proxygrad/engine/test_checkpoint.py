"""Going on from a checkpoint is never having stopped, to the bit; and nothing else is gone on from."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
import safetensors.torch
import torch

from proxygrad.engine import checkpoint as checkpoint_module
from proxygrad.engine.checkpoint import Checkpoint
from proxygrad.engine.group import Group, GroupKey
from proxygrad.engine.lane import Lane
from proxygrad.engine.request import requested_objective
from proxygrad.errors import CheckpointMismatch
from proxygrad.networks.network import Network
from proxygrad.precision import Precision
from proxygrad.spec import Spec
from proxygrad.spec.settings import PRESETS
from tests.support.networks import Dead, small

NETWORK = small()
STEPS = 6
SETTINGS = [
    {"parameterization": images, "update": update, "robustness": robustness, "blur_px": blur_px}
    for images, update, robustness, blur_px in product(
        ("pixels", "fourier", "maco"), ("normalized", "sgd", "adam"), ("none", "standard"), (0.0, 0.7)
    )
    if images == "pixels" or not blur_px
]


def ask(network: Network = NETWORK, **settings: Any) -> Spec:
    given = {"model": "small", "layer": "conv2", "unit": 2, "steps": STEPS, "step_size": 0.05, **settings}
    return Spec.model_validate(given).resolve(network.info)


def begin(
    network: Network, spec: Spec, checkpoint: Checkpoint | None = None, precision: Precision = "float32"
) -> tuple[Group, Lane]:
    size = (spec.size_px, spec.size_px) if spec.size_px else (network.input_shape[1], network.input_shape[2])
    lane = Lane(spec, requested_objective(spec).at({spec.layer: network.layer_shape(spec.layer, size)}))
    group = Group(GroupKey.of(network, lane, size, precision))
    group.join(lane, checkpoint.states[0] if checkpoint else None)
    return group, lane


def finish(group: Group, lane: Lane) -> Lane:
    while group.lanes:
        group.step()
    return lane


def frozen(network: Network, spec: Spec, group: Group, lane: Lane) -> Checkpoint:
    """Through its bytes, as it travels."""
    return Checkpoint.from_bytes(
        Checkpoint.of(spec, network.info, {0: group.state(lane)}, ran_s=1.5).to_bytes()
    )


def assert_same(resumed: Lane, whole: Lane) -> None:
    assert resumed.image is not None
    assert whole.image is not None
    assert resumed.curve == whole.curve
    assert torch.equal(resumed.image, whole.image)
    assert (resumed.steepest, resumed.steepest_ever) == (whole.steepest, whole.steepest_ever)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda each: "-".join(map(str, each.values())))
def test_a_resumed_lane_is_the_uninterrupted_one_to_the_bit(settings: dict[str, Any]) -> None:
    spec = ask(**settings)
    whole = finish(*begin(NETWORK, spec))
    group, lane = begin(NETWORK, spec)
    taken = [frozen(NETWORK, spec, group, lane)]
    while len(lane.curve) < STEPS:  # every step up to the last evaluation
        group.step()
        taken.append(frozen(NETWORK, spec, group, lane))
    assert [each.step for each in taken] == [0, *range(STEPS)]
    for each in taken:
        assert_same(finish(*begin(NETWORK, spec, each)), whole)
    assert_same(finish(group, lane), whole)  # nor does it matter to have been looked at


@pytest.mark.parametrize(
    "settings",
    [
        {
            "slope": 0.3,
            "slope_end": 0.0,
            "slope_hold": 0.2,
            "slope_end_at": 0.7,
            "gaf": "log",
            "total_variation": 0.1,
            "l2": 0.1,
        },
        {"proxy": "network", "update": "adam"},
        {"preset": "natural", "steps": STEPS},
        {"size_px": 24},
    ],
    ids=["schedule and penalties", "network form", "natural", "another size"],
)
def test_so_do_other_settings(settings: dict[str, Any]) -> None:
    spec = ask(**settings)
    whole = finish(*begin(NETWORK, spec))
    group, lane = begin(NETWORK, spec)
    for _ in range(3):
        group.step()
    assert_same(finish(*begin(NETWORK, spec, frozen(NETWORK, spec, group, lane))), whole)


def test_and_steps_in_bfloat16() -> None:
    spec = ask(update="adam", robustness="standard")
    whole = finish(*begin(NETWORK, spec, precision="bfloat16"))
    assert whole.curve != finish(*begin(NETWORK, spec)).curve
    group, lane = begin(NETWORK, spec, precision="bfloat16")
    for _ in range(3):
        group.step()
    taken = frozen(NETWORK, spec, group, lane)
    assert_same(finish(*begin(NETWORK, spec, taken, precision="bfloat16")), whole)


def test_images_of_one_channel_too() -> None:
    network = Network(Dead(), (1, 8, 8), name="dead")
    spec = Spec(model="dead", layer="relu", unit=0, steps=STEPS, robustness="standard").resolve(network.info)
    whole = finish(*begin(network, spec))
    group, lane = begin(network, spec)
    for _ in range(3):
        group.step()
    assert_same(finish(*begin(network, spec, frozen(network, spec, group, lane))), whole)


def half_way(**settings: Any) -> tuple[Spec, Checkpoint]:
    spec = ask(**settings)
    group, lane = begin(NETWORK, spec)
    for _ in range(3):
        group.step()
    return spec, Checkpoint.of(spec, NETWORK.info, {0: group.state(lane)}, ran_s=1.5)


def test_bytes_hold_everything_and_run_no_code() -> None:
    _, taken = half_way(update="adam", robustness="standard")
    again = Checkpoint.from_bytes(taken.to_bytes())
    assert (again.request, again.digest, again.engine_version) == (
        taken.request,
        taken.digest,
        taken.engine_version,
    )
    assert (again.step, again.ran_s) == (2, 1.5)
    assert again.states[0].curve == taken.states[0].curve  # float64: no digit is lost
    assert torch.equal(again.states[0].params, taken.states[0].params)
    assert torch.equal(again.states[0].generator, taken.states[0].generator)
    assert set(again.states[0].rule) == {"mean", "square"}
    assert taken.to_bytes() == again.to_bytes()


def test_a_checkpoint_shares_nothing_with_the_running_lane() -> None:
    spec = ask(update="sgd")
    group, lane = begin(NETWORK, spec)
    group.step()
    taken = Checkpoint.of(spec, NETWORK.info, {0: group.state(lane)}, 0.0)
    before = taken.to_bytes()
    finish(group, lane)
    assert taken.to_bytes() == before


@pytest.mark.parametrize("at", [0.0, 0.0006, 0.001, 0.01, 0.1, 0.3, 0.6, 0.9, 0.99999])
def test_a_single_changed_bit_is_noticed_wherever_it_is(at: float) -> None:
    data = bytearray(half_way()[1].to_bytes())
    data[int(at * len(data))] ^= 1
    with pytest.raises(CheckpointMismatch, match="damaged"):
        Checkpoint.from_bytes(bytes(data))


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"\xff" * 64, b"\x80\x04K\x01.", safetensors.torch.save({"a": torch.zeros(3)})]
)
def test_what_is_no_checkpoint_is_refused(data: bytes) -> None:
    with pytest.raises(CheckpointMismatch, match=f"these {len(data)} bytes are no checkpoint"):
        Checkpoint.from_bytes(data)


def test_half_a_checkpoint_is_refused() -> None:
    data = half_way()[1].to_bytes()
    for length in (4, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(CheckpointMismatch):
            Checkpoint.from_bytes(data[:length])


def test_of_another_question_weights_or_version_it_says_what_differs() -> None:
    spec, taken = half_way()
    taken.check(spec, NETWORK.info)
    for changed, said in (
        ({"unit": 3}, "unit 2; here it is 3"),
        ({"seed": 1}, "seed 0; here it is 1"),
        ({"steps": 7}, "steps 6; here it is 7"),
        ({"update": "adam"}, "update 'normalized'; here it is 'adam'"),
    ):
        with pytest.raises(CheckpointMismatch, match=said):
            taken.check(ask(**changed), NETWORK.info)
    others = {"digest": "0" * 64, "engine_version": "0"}
    for field, value in others.items():
        with pytest.raises(
            CheckpointMismatch, match=f"{field.replace('digest', 'model digest').replace('_', ' ')}"
        ):
            taken.check(spec, NETWORK.info.model_copy(update={field: value}))


def test_a_preset_and_the_same_spelled_out_are_one_question() -> None:
    spec, taken = half_way(preset="fast", steps=STEPS, step_size=0.05)
    spelled: dict[str, Any] = {**PRESETS["fast"], "steps": STEPS, "step_size": 0.05}
    taken.check(ask(**spelled), NETWORK.info)
    assert spec.preset == "fast"


def test_another_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, taken = half_way()
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint_module, "FORMAT", 99)
        data = taken.to_bytes()
    with pytest.raises(CheckpointMismatch, match="format 99"):
        Checkpoint.from_bytes(data)


def test_other_shapes_are_refused_before_anything_joins() -> None:
    spec, taken = half_way()
    lane = Lane(spec, requested_objective(spec))
    group = Group(GroupKey.of(NETWORK, lane, (24, 24)))
    with pytest.raises(CheckpointMismatch, match=r"holds .*\(3, 16, 16\).*needs .*\(3, 24, 24\)"):
        group.join(lane, taken.states[0])
    assert group.lanes == []


def test_it_is_small_and_says_what_it_is() -> None:
    data = half_way()[1].to_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    about = json.loads(header["__metadata__"]["checkpoint"])["about"]
    assert (about["format"], about["step"], about["request"]["unit"]) == (4, 2, 2)
    assert len(data) < 2 * 3 * 16 * 16 * 4 + 10_000  # parameters, best image; generator and header
