"""One step alone, and parts of the method that a caller brings in place of those of the settings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from proxygrad.engine.group import Group, GroupKey
from proxygrad.engine.lane import DiversityGroup, Lane, MethodOverrides
from proxygrad.engine.step import AscentStep
from proxygrad.errors import InvalidRequest, LaneError, NetworkError
from proxygrad.maximization.ascent import maximize
from proxygrad.networks.network import Network
from proxygrad.objectives.units import Channel
from proxygrad.optim.update_rules import Normalized, StepContext
from proxygrad.parameterizations import Fourier, Pixels
from proxygrad.spec.settings import AscentSettings
from proxygrad.transforms import Draw
from tests.support.networks import small

SIZE = (16, 16)
STILL = Draw(None, None)


def lanes(*seeds: int, overrides: MethodOverrides | None = None, **settings: object) -> list[Lane]:
    given = {"steps": 6, "preset": "max", **settings}
    made = [
        Lane(AscentSettings.model_validate({**given, "seed": seed}).completed(), Channel("conv2", 1))
        for seed in seeds
    ]
    for each in made:
        each.overrides = overrides or each.overrides
    return made


def run(together: list[Lane]) -> list[Lane]:
    group = Group(GroupKey.of(small(), together[0], SIZE))
    for each in together:
        group.join(each)
    while group.lanes:
        group.step()
    return together


def test_a_step_is_the_gradient_of_each_lane_and_the_rule_applied_to_it() -> None:
    network = small()
    step = AscentStep(network.prepared(("conv2",), "float32"), Pixels((3, *SIZE)), Normalized())
    own = lanes(0, 1, slope=0.0)
    params = torch.rand((2, 3, *SIZE), generator=torch.Generator().manual_seed(0))
    found = step.evaluate(own, params, [STILL, STILL])

    image = params.clone().requires_grad_()
    values = network.read(image, ["conv2"])["conv2"][:, 1].mean(dim=(1, 2))
    (gradient,) = torch.autograd.grad(values.sum(), image)
    torch.testing.assert_close(found.activations, values.detach())
    torch.testing.assert_close(found.gradient, gradient)
    torch.testing.assert_close(found.steepest, gradient.flatten(1).abs().amax(dim=1))
    assert torch.equal(found.images, params)

    own[0].curve, own[1].curve = [0.0], [0.0, 0.0, 0.0, 0.0]  # before the first step, and before the fourth
    moved = step.update(own, params, found, {}, torch.tensor([0, 3]))
    rates = torch.tensor([each.rate for each in own]).view(2, 1, 1, 1)
    lengths = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    torch.testing.assert_close(moved, (params + rates * gradient / lengths).clamp(0, 1))
    assert own[0].rate > own[1].rate


def test_lanes_of_a_diversity_group_are_pushed_apart_and_others_are_not() -> None:
    step = AscentStep(small().prepared(("conv2",), "float32"), Pixels((3, *SIZE)), Normalized())
    own = lanes(0, 1, 2)
    params = torch.rand((3, 3, *SIZE), generator=torch.Generator().manual_seed(0))
    before = step.evaluate(own, params, [STILL] * 3).gradient
    own[0].diversity_group = own[1].diversity_group = DiversityGroup(0.5)
    after = step.evaluate(own, params, [STILL] * 3).gradient
    assert not torch.allclose(after[0], before[0])
    assert torch.equal(after[2], before[2])


def test_an_update_rule_of_ones_own_moves_the_image() -> None:
    """The rule draws noise, as Langevin dynamics does; a lane's noise is its own in any company."""

    class Langevin:
        state_names = ("drift",)

        def step(
            self, params: Tensor, gradient: Tensor, state: dict[str, Tensor], context: StepContext
        ) -> Tensor:
            state["drift"] = 0.9 * state["drift"] + gradient
            return params + context.rates_of(params) * (state["drift"] + 0.1 * context.noise(params))

    overrides = MethodOverrides(update_rule=Langevin())
    alone = run(lanes(4, overrides=overrides))[0]
    company = run(lanes(3, 4, 5, overrides=overrides))[1]
    torch.testing.assert_close(company.finished_image, alone.finished_image, rtol=0, atol=1e-5)
    plain = run(lanes(4))[0]
    assert not torch.allclose(alone.finished_image, plain.finished_image, atol=1e-2)


def test_a_parameterization_of_ones_own_makes_the_image() -> None:
    class Gray(Pixels):
        """One value for each row of the image."""

        def start(self, generator: torch.Generator, noise: float = 0.0) -> Tensor:
            return torch.rand(self.shape[1], generator=generator)

        def encode(self, images: Tensor) -> Tensor:
            return images.mean(dim=(1, 3))

        def decode(self, params: Tensor) -> Tensor:
            return params[:, None, :, None].expand(-1, *self.shape)

    found = run(lanes(0, 1, overrides=MethodOverrides(parameterization=Gray((3, *SIZE)))))
    for each in found:
        image = each.finished_image
        assert torch.equal(image, image[:1, :, :1].expand_as(image))
        assert each.curve[-1] > each.curve[0]


def test_a_transform_of_ones_own_is_what_the_steps_see() -> None:
    seen = list[Tensor]()

    def shifted(image: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(image.detach())
        return image.roll(int(torch.randint(1, 16, (), generator=generator)), dims=-1)

    overrides = MethodOverrides(transform=shifted)
    first, again = (run(lanes(2, steps=5, overrides=overrides))[0] for _ in range(2))
    assert first.curve == again.curve
    assert len(seen) == 2 * 4  # neither the first nor the last of 5 + 1 evaluations
    assert first.curve[1:-1] != run(lanes(2, steps=5))[0].curve[1:-1]
    assert math.isfinite(first.curve[-1])


def test_a_transform_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"transform returned shape \(1, 3, 8, 16\) .* \(1, 3, 16, 16\)"):
        run(lanes(0, overrides=MethodOverrides(transform=lambda image, generator: image[:, :, :8])))


def test_overrides_leave_the_other_settings() -> None:
    fourier = Fourier((3, *SIZE))
    own = run(lanes(1, overrides=MethodOverrides(parameterization=fourier)))[0]
    named = run(lanes(1, parameterization="fourier"))[0]
    assert torch.equal(own.finished_image, named.finished_image)


class Roots(nn.Module):
    """The root of a rectifier's value: its derivative at 0 is infinite, and the rectifier's own is 0."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        roots: Tensor = self.conv2(torch.relu(self.conv(x)).sqrt())
        return roots


class Sums(Roots):
    """A rectifier that is given minus infinity, as masked scores are."""

    def forward(self, x: Tensor) -> Tensor:
        scores = self.conv(x)
        masked = torch.cat([scores[:, :, :, 1:], torch.full_like(scores[:, :, :, :1], -torch.inf)], dim=3)
        sums: Tensor = self.conv2(torch.relu(masked))
        return sums


@pytest.mark.parametrize(
    ("module", "proxy"),
    [(Roots, "surrogate"), (Sums, "surrogate"), (Sums, "network")],  # there is no root of what is below 0
)
def test_the_slope_makes_no_finite_problem_infinite(module: type[Roots], proxy: str) -> None:
    network = Network(module(), (3, 12, 12))
    found = maximize(network, "conv2:1", slope=0.1, proxy=proxy, preset="max", steps=8)
    assert found.activation > found.start_activation
    assert math.isfinite(found.activation)


def test_numbers_that_only_the_proxy_network_makes_infinite_name_the_proxy() -> None:
    network = Network(Roots(), (3, 12, 12))
    with pytest.raises(LaneError, match="gradient nan at step 0; proxy 'network' passes values below 0 on"):
        maximize(network, "conv2:1", slope=0.1, proxy="network", steps=2)
    assert maximize(network, "conv2:1", slope=0.0, proxy="network", steps=2).activation


def test_a_network_without_backward_pass_says_so() -> None:
    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

    class Wall(Roots):
        def forward(self, x: Tensor) -> Tensor:
            walled: Tensor = Forward.apply(self.conv(x))  # type: ignore[no-untyped-call]
            return walled

    with pytest.raises(NetworkError, match="the network has no backward pass: "):
        maximize(Network(Wall(), (3, 12, 12)), "output:1", steps=2)


def test_a_network_that_cuts_the_image_off_and_has_gradients_of_its_own_says_so() -> None:
    class Apart(Roots):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.detach().clone().requires_grad_())

    with pytest.raises(NetworkError, match="layer 'conv2' does not depend on the image"):
        maximize(Network(Apart(), (3, 12, 12)), "conv2:1", steps=2)
