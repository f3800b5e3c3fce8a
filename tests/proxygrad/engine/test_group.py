"""Lanes: alone or together the same, each with its own fate, and plain ascent is a loop of ten lines."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from proxygrad.engine.group import Group, GroupKey
from proxygrad.engine.lane import NO_OVERRIDES, Lane, MethodOverrides
from proxygrad.engine.rendering import first_image, is_stuck, measure
from proxygrad.engine.request import requested_objective
from proxygrad.errors import LaneError, NetworkError
from proxygrad.images import start_image
from proxygrad.networks.network import Network
from proxygrad.parameterizations import Maco
from proxygrad.spec import Spec
from tests.support.networks import Dead, Peak, Small, small


def lane(network: Network, **settings: object) -> Lane:
    spec = Spec.model_validate(
        {
            "model": "small",
            "layer": "conv2",
            "unit": 0,
            "preset": "max",
            "starts": 1,
            "gaf": "none",
            "steps": 12,
        }
        | settings
    )
    spec = spec.resolve(network.info)
    return Lane(
        spec,
        requested_objective(spec).at({spec.layer: network.layer_shape(spec.layer, network.input_shape[1:])}),
    )


def group(network: Network, first: Lane) -> Group:
    return Group(GroupKey.of(network, first, network.input_shape[1:]))


def run(network: Network, lanes: list[Lane]) -> list[Lane]:
    running = group(network, lanes[0])
    for each in lanes:
        running.join(each)
    while running.lanes:
        running.step()
    return lanes


def image(of: Lane) -> Tensor:
    assert of.image is not None
    return of.image


def stuck(network: Network, of: Lane) -> bool:
    start, best = (measure(network, of.objective, each) for each in (first_image(network, of), image(of)))
    return is_stuck(network, of, start, best)


def test_slope_0_is_an_independent_loop_of_plain_activation_maximization() -> None:
    module, steps, size = Small().eval(), 12, 0.1
    x = start_image((3, 16, 16), seed=3).unsqueeze(0)
    curve, pictures = [], []
    for step in range(steps + 1):
        x = x.detach().requires_grad_()
        value = module.conv2(torch.relu(module.bn(module.conv(x))))[0, 4].mean()
        (grad,) = torch.autograd.grad(value, x)
        curve.append(value.item())
        pictures.append(x.detach()[0])
        x = (x + size * (1 - step / steps) * grad / grad.square().mean().sqrt()).clamp(0, 1)

    network = small()
    (found,) = run(network, [lane(network, unit=4, seed=3, slope=0.0, step_size=size)])
    assert found.curve == pytest.approx(curve, rel=1e-4, abs=1e-6)
    best = max(range(steps + 1), key=curve.__getitem__)
    torch.testing.assert_close(image(found), pictures[best], rtol=0, atol=1e-4)


def test_a_lane_among_strangers_is_the_lane_alone() -> None:
    """Rounding differs between batch sizes, and 12 steps of it stay below half a level of an 8-bit image."""
    network = small()
    mine = {"unit": 2, "seed": 7, "slope": 0.05, "objective": "neuron"}
    strangers = [
        {"unit": unit % 6, "seed": unit, "slope": unit / 15, "steps": 1 + unit} for unit in range(15)
    ]
    (alone,) = run(network, [lane(network, **mine)])
    together = run(network, [*(lane(network, **each) for each in strangers), lane(network, **mine)])[-1]
    torch.testing.assert_close(image(together), image(alone), rtol=0, atol=0.5 / 255)
    assert together.curve == pytest.approx(alone.curve, rel=1e-3, abs=1e-5)


def test_the_same_lane_twice_is_the_same_to_the_bit() -> None:
    network = small()
    first, second = (run(network, [lane(network, unit=1, seed=1)])[0] for _ in range(2))
    assert torch.equal(image(first), image(second))
    assert first.curve == second.curve


def test_lanes_join_late_and_leave_early() -> None:
    network = small()
    long, short = lane(network, steps=10), lane(network, steps=3, seed=1)
    running = group(network, long)
    running.join(long)
    running.step()
    running.join(short)
    ended = [[each.step for each in running.step()] for _ in range(10)]
    assert ended == [[], [], [], [3], [], [], [], [], [], [10]]
    assert running.lanes == []
    assert len(short.curve) == 4


def test_the_best_image_is_kept() -> None:
    """A first step far too long lands where the unit is 0; what is kept is still the best that was seen."""
    network = Network(Peak(), (1, 8, 8))
    (found,) = run(network, [lane(network, layer="relu", objective="logit", step_size=5.0, slope=0.0)])
    assert found.curve[-1] == 0.0
    assert found.curve[0] == pytest.approx(0.2, abs=0.01)
    assert torch.equal(image(found), start_image((1, 8, 8), seed=0))
    assert stuck(network, found)


def test_the_proxy_revives_a_dead_unit_and_plain_ascent_does_not() -> None:
    """`Dead` is 0 with gradient 0 below 0.75, so plain ascent never leaves gray, by construction."""
    network = Network(Dead(), (1, 8, 8), name="dead")
    settings = {"layer": "relu", "step_size": 0.2}
    plain, proxy = run(network, [lane(network, slope=0.0, **settings), lane(network, slope=0.05, **settings)])
    assert stuck(network, plain)
    assert plain.curve == [0.0] * 13
    assert torch.equal(image(plain), start_image((1, 8, 8), seed=0))
    assert not stuck(network, proxy)
    assert max(proxy.curve) == pytest.approx(8.0 - 6.0 - 0.5)  # every pixel at 1: the global maximum


def test_a_penalty_does_not_hide_that_a_unit_is_stuck() -> None:
    network = Network(Dead(), (1, 8, 8), name="dead")
    (found,) = run(network, [lane(network, layer="relu", slope=0.0, total_variation=0.1)])
    assert found.curve == [0.0] * 13
    assert stuck(network, found)


def test_a_lane_that_is_not_finite_fails_alone_and_names_the_step() -> None:
    network = small()
    ill, well = lane(network, seed=1), lane(network, seed=2)
    running = group(network, ill)
    running.join(ill)
    running.join(well)
    running.step()
    running.step()
    running._params[0, 0, 0, 0] = float("nan")
    assert running.step() == [ill]
    assert isinstance(ill.error, LaneError)
    assert "activation nan" in str(ill.error)
    assert str(ill.error).endswith("at step 2")
    while running.lanes:
        running.step()
    (alone,) = run(network, [lane(network, seed=2)])
    torch.testing.assert_close(image(well), image(alone), rtol=0, atol=0.5 / 255)


@pytest.mark.parametrize("ill", [0, 3, 7])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_seven_of_eight_are_untouched_by_one_that_overflows(ill: int, value: float) -> None:
    """To the bit those of a batch of the same size that the eighth simply left at that step."""

    def start() -> tuple[Group, list[Lane]]:
        lanes = [lane(network, unit=unit % 6, seed=unit, update="adam", steps=6) for unit in range(8)]
        running = group(network, lanes[0])
        for each in lanes:
            running.join(each)
        running.step()
        running.step()
        return running, lanes

    network = small()
    running, lanes = start()
    running._params[ill] = value
    assert running.step() == [lanes[ill]]
    assert str(lanes[ill].error).endswith("at step 2")
    other, expected = start()
    other.step()
    other.leave(expected[ill])
    for each in (running, other):
        while each.lanes:
            each.step()
    for found, own in zip(lanes, expected, strict=True):
        if found is not lanes[ill]:
            assert found.error is None
            assert found.curve == own.curve
            assert torch.equal(image(found), image(own))


def test_lanes_of_a_group_share_what_overrides_their_settings() -> None:
    network, size = small(), (16, 16)
    first, second = (MethodOverrides(Maco((3, *size), magnitude=torch.ones(3, 16, 9))) for _ in range(2))
    keys = []
    for overrides in (first, first, second, NO_OVERRIDES):
        each = lane(network, parameterization="maco")
        each.overrides = overrides
        keys.append(GroupKey.of(network, each, size))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_layer_that_does_not_depend_on_the_image_is_named() -> None:
    class Constant(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.ones_like(x))

    with pytest.raises(NetworkError, match="layer 'conv2' does not depend on the image"):
        Network(Constant(), (3, 16, 16))


def test_weights_never_get_gradients() -> None:
    network = small()
    run(network, [lane(network)])
    assert all(
        parameter.grad is None and not parameter.requires_grad for parameter in network.module.parameters()
    )


def test_a_network_that_takes_fewer_images_than_there_are_lanes_gets_so_many() -> None:
    class AtMostFour(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.zeros(4, 3, 16, 16)[: len(x)])

    network = Network(AtMostFour(), (3, 16, 16))
    settings: dict[str, object] = {"layer": "conv2", "steps": 3}
    together = run(network, [lane(network, unit=unit, **settings) for unit in range(6)])
    for unit, found in enumerate(together):
        (alone,) = run(network, [lane(network, unit=unit, **settings)])
        assert found.curve == pytest.approx(alone.curve, rel=1e-4, abs=1e-6)
