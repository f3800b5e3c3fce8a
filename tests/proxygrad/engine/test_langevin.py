"""Chains in the engine: several samples of each, resumed to the bit, alone or among others the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from proxygrad.engine.checkpoint import Checkpoint
from proxygrad.engine.engine import Engine
from proxygrad.engine.group import Group, GroupKey
from proxygrad.engine.lane import Lane
from proxygrad.engine.request import RenderRequest
from proxygrad.errors import ChainDiverged
from proxygrad.images import decode_png
from proxygrad.langevin.discriminator import Discriminator, DiscriminatorArchitecture
from proxygrad.networks.network import Network
from proxygrad.spec import Spec
from tests.support.networks import small


def led() -> Network:
    """With an untrained discriminator, whose gradient is not zero."""
    network = small()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network.discriminator = Discriminator(
            DiscriminatorArchitecture(input_shape=network.input_shape, channels=(4, 4), hidden=8)
        )
    return network


NETWORK = led()
CHAINS = {"chains": 2, "burn_in": 4, "thinning": 3, "discriminator_weight": 0.5, "pull": 0.1}


def ask(images: int = 4, langevin: dict[str, Any] | None = None, **settings: Any) -> Spec:
    given = {"model": "small", "layer": "conv2", "unit": 2, "sampler": "langevin", "images": images}
    chains = {**CHAINS, **(langevin or {})}
    return Spec.model_validate({**given, "langevin": chains, **settings}).resolve(NETWORK.info)


def begin(spec: Spec, checkpoint: Checkpoint | None = None) -> tuple[Group, tuple[Lane, ...]]:
    request = RenderRequest(NETWORK, spec, checkpoint=checkpoint)
    group = Group(request.prepare("float32"))
    for lane, state in zip(request.lanes, request.states, strict=True):
        group.join(lane, state)
    return group, request.lanes


def finish(group: Group) -> None:
    while group.lanes:
        group.step()


def test_several_samples_of_each_chain_are_images_of_one_visualization() -> None:
    with Engine(precision="float32") as engine:
        rendering = engine.submit(NETWORK, ask()).result()
    found = rendering.result
    assert [(each.chain, each.seed, each.steps_done) for each in found.images] == [
        (0, 0, 7),
        (0, 0, 10),
        (1, 1, 7),
        (1, 1, 10),
    ]
    assert [len(each.curve) for each in found.images] == [8, 11, 8, 11]
    assert found.sampling is not None
    assert (found.sampling.draws, len(found.sampling.chains)) == (6, 2)
    assert len({bytes(png) for png in rendering.images}) == 4
    assert all(decode_png(png).shape == NETWORK.input_shape for png in rendering.images)


@pytest.mark.parametrize("variant", ["sgld", "authors"])
@pytest.mark.parametrize("stop", [1, 8])
def test_a_chain_resumes_to_the_bit_before_and_between_samples(variant: str, stop: int) -> None:
    spec = ask(langevin={"variant": variant})
    group, whole = begin(spec)
    finish(group)
    group, lanes = begin(spec)
    for _ in range(stop + 1):
        group.step()
    states = {number: group.state(lane) for number, lane in enumerate(lanes)}
    frozen = Checkpoint.of(spec, NETWORK.info, states, ran_s=1.0).to_bytes()
    checkpoint = Checkpoint.from_bytes(frozen)
    checkpoint.check(spec, NETWORK.info)
    group, resumed = begin(spec, checkpoint)
    finish(group)
    for lane, again in zip(whole, resumed, strict=True):
        assert lane.curve == again.curve
        assert torch.equal(torch.stack(lane.samples), torch.stack(again.samples))


def test_a_chain_among_strangers_is_the_chain_alone() -> None:
    """Rounding differs between batch sizes; ten steps of it stay far below a level of an 8-bit image."""
    alone, (mine, _) = begin(ask())
    finish(alone)
    group, (again, _) = begin(ask())
    for seed in (5, 9):
        _, strangers = begin(ask(images=2, seed=seed, unit=1, slope=0.3))
        for lane in strangers:
            assert GroupKey.of(NETWORK, lane, (16, 16)) == GroupKey.of(NETWORK, again, (16, 16))
            group.join(lane)
    finish(group)
    torch.testing.assert_close(torch.stack(again.samples), torch.stack(mine.samples), rtol=0, atol=1e-4)


def test_a_step_is_the_rule_on_the_networks_own_gradient() -> None:
    group, (lane, _) = begin(ask(langevin={"beta": 50.0, "temperature": 0.0}))
    start = group.state(lane).params.unsqueeze(0)
    group.step()
    moved = group.state(lane).params
    x = start.clone().requires_grad_()
    discriminator = NETWORK.discriminator
    assert discriminator is not None
    value = 50 * NETWORK.activations(x, "conv2")[0, 2].mean() + 0.5 * discriminator.log_real(x).sum()
    value = value - 0.1 / 2 * (x - 0.5).square().sum()
    (gradient,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(moved, (start + 5e-4 * gradient)[0])


def test_the_slope_reaches_chains() -> None:
    curves = []
    for slope in (0.0, 0.5):
        group, (lane, _) = begin(ask(slope=slope, langevin={"beta": 1e3}))
        finish(group)
        curves.append(lane.curve)
    assert curves[0][0] == curves[1][0]
    assert curves[0] != curves[1]


def test_a_chain_that_diverges_says_which_and_when() -> None:
    with Engine(precision="float32") as engine:
        future = engine.submit(NETWORK, ask(langevin={"step_size": 1.0, "beta": 1e6}))
        with pytest.raises(ChainDiverged, match=r"^chain 0 of 2 \(seed 0\) diverged at step 0: .* from gray"):
            future.result()
