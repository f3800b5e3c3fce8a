"""`attribute`: the call, its targets, layers, batches and errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import proxygrad as pg
from proxygrad.attribution.attribute import attribute
from proxygrad.errors import InvalidRequest, NetworkError, OutOfMemory, UnitOutOfRange, UnknownLayer
from tests.support.attributed_functions import Function, attributed, numbers


class Small(nn.Module):
    """A convolution and two dense layers; one ReLU that is used three times, in place and not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.hidden = nn.Linear(144, 8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        x = self.relu(x - 0.1)
        result: Tensor = self.fc(self.relu(self.hidden(x.flatten(1))))
        return result


@pytest.fixture(scope="module")
def small() -> pg.Network:
    return pg.Network(Small(), (3, 8, 8), mean=(0.4, 0.5, 0.6), std=0.3, name="small")


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_contributions_are_to_the_pixels_given(small: pg.Network) -> None:
    class Normalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Small()

        def forward(self, x: Tensor) -> Tensor:
            mean = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
            result: Tensor = self.inner((x - mean) / 0.3)
            return result

    x = images(2)
    found, expected = attribute(small, x, "fc:3"), attribute(Normalized(), x, "output:3")
    assert torch.allclose(found.contributions, expected.contributions, atol=1e-7)
    assert float(found.delta.relative.max()) < 1e-5
    assert torch.allclose(found.value, small.activations(x, "fc")[:, 3])
    assert torch.allclose(found.reference_value, small.activations(torch.zeros_like(x), "fc")[:, 3])


def test_any_objective_at_any_layer(small: pg.Network) -> None:
    x = images(2)
    objectives = [
        "conv:1",
        "conv:2@1,3",
        "relu@2:0",
        pg.Margin("fc", 1),
        pg.Energy("hidden"),
        pg.Direction("hidden", tuple(range(1, 9)), measure="cosine"),
        pg.Logit("fc", 0) - 2 * pg.Channel("conv", 1),
        lambda activations: activations["conv"].amax((1, 2, 3)) + activations["fc"][:, 0],
    ]
    for objective in objectives:
        found = attribute(small, x, objective, dtype=torch.float64, strict=True)
        assert float(found.delta.absolute.abs().max()) < 1e-12, objective


def test_one_objective_for_each_input(small: pg.Network) -> None:
    x = images(3)
    together = attribute(small, x, ["fc:2", "fc:0", "fc:2"])
    for row, objective in enumerate(["fc:2", "fc:0", "fc:2"]):
        alone = attribute(small, x[row], objective)
        assert torch.allclose(together.contributions[row], alone.contributions[0], atol=1e-7)
        assert torch.allclose(together.value[row], alone.value[0], atol=1e-6)


def test_an_inner_layer(small: pg.Network) -> None:
    x = images(2)
    for layer in ("conv", "relu", "relu@1", "relu@2", "hidden"):
        found = attribute(small, x, "fc:3", at=layer, dtype=torch.float64)
        assert found.contributions.shape == small.in_float64().activations(x, layer).shape
        assert float(found.delta.absolute.abs().max()) < 1e-12, layer
    before, behind = (attribute(small, x, "fc:3", at=layer).multipliers for layer in ("relu", "relu@2"))
    assert not torch.allclose(before, behind)


def test_an_inner_layer_leaves_out_what_goes_around_it() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = x + self.inner(x)
            return result

    module, x = Around(), torch.rand(2, 3)
    found = attribute(module, x, "output:1", at="inner")
    assert torch.allclose(found.delta.absolute.float(), -x[:, 1], atol=1e-6)
    assert torch.equal(found.multipliers, torch.tensor([[0.0, 1.0, 0.0]] * 2))


def test_tokens_through_their_embedding() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embed = nn.Embedding(10, 6)
            self.encoder = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
            self.fc = nn.Linear(6, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            result: Tensor = self.fc(self.encoder(self.embed(tokens)).mean(1))
            return result

    tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    found = attribute(
        Tokens(), tokens, "fc:1", at="embed", reference=torch.zeros(4, dtype=torch.long), dtype=torch.float64
    )
    assert found.contributions.shape == (2, 4, 6)
    assert float(found.delta.relative.max()) < 1e-12
    with pytest.raises(InvalidRequest, match=r"int64.*at="):
        attribute(Tokens(), tokens, "fc:1", reference=0)


def test_slices_and_references(small: pg.Network) -> None:
    x = images(3)
    several = torch.stack([images(3, seed) for seed in (1, 2)], dim=1)  # (N, k, C, H, W)
    found, sliced = (attribute(small, x, "fc:1", reference=several, max_rows=rows) for rows in (None, 4))
    assert torch.allclose(found.contributions, sliced.contributions, atol=1e-7)
    apart = [attribute(small, x, "fc:1", reference=several[:, each]) for each in range(2)]
    assert torch.allclose(
        found.contributions, (apart[0].contributions + apart[1].contributions) / 2, atol=1e-7
    )
    assert torch.allclose(found.reference_value, (apart[0].reference_value + apart[1].reference_value) / 2)
    assert found.each_multipliers.shape == (3, 2, 3, 8, 8)
    assert float(found.delta.relative.max()) < 1e-5


class Hungry(pg.Objective):
    """One number of the output, for at most ``most`` rows at once."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.rows = list[int]()

    @property
    def layers(self) -> tuple[str, ...]:
        return ("output",)

    def __call__(self, activations: Any) -> Tensor:
        output: Tensor = activations["output"]
        if len(output) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.rows.append(len(output))
        return output[:, 1]


def test_rows_that_do_not_fit_run_in_smaller_slices() -> None:
    module, x = Function(torch.sin), torch.rand(8, 3)
    expected = attribute(module, x, Hungry(8)).contributions
    objective = Hungry(3)
    assert torch.equal(attribute(module, x, objective).contributions, expected)
    assert set(objective.rows) == {2}
    with pytest.raises(OutOfMemory, match="not even one pair"):
        attribute(module, x, Hungry(0))


def test_what_runs_inside_a_function_with_a_gradient_of_its_own() -> None:
    class StraightThrough(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            return 17 * grads[0]

    x, x0 = numbers(2, 6), numbers(2, 6, seed=1)
    found = attributed(StraightThrough.apply, x, x0)
    assert torch.equal(found.contributions, attributed(torch.relu, x, x0).contributions)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_torchscript_inside_of_a_function_is_seen() -> None:
    @torch.jit.script
    def gate(x: Tensor) -> Tensor:
        return torch.relu(x) * torch.sigmoid(x)

    x, x0 = numbers(2, 6), numbers(2, 6, seed=1)
    found = attributed(gate, x, x0)
    plain = attributed(lambda x: torch.relu(x) * torch.sigmoid(x), x, x0)
    assert torch.allclose(found.contributions, plain.contributions, atol=1e-14)
    with pytest.raises(NetworkError, match="TorchScript"):
        attribute(torch.jit.script(nn.Linear(2, 2)), torch.rand(1, 2), "output:0")


class Sorts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sort(dim=1).values


class Sorting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.order = Sorts()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.order(x.tanh()) * torch.arange(x.shape[1])
        return result


def test_an_operation_without_a_rule_is_named_and_measured() -> None:
    x, x0 = numbers(3, 6), numbers(3, 6, seed=1)
    found = attributed(Sorting(), x, x0, strict=False)
    (unruled,) = found.unruled
    assert (unruled.operation, unruled.layer) == ("sort", "order")
    assert found.delta.operations[0] == unruled
    assert unruled.missed == pytest.approx(float(found.delta.absolute.abs().sum()), rel=1e-9)
    assert unruled.share > 0.01
    assert "without a rule: sort in 'order'" in repr(found)
    with pytest.raises(InvalidRequest, match=r"operation 'sort' in layer 'order' has no rule.*strict=False"):
        attributed(Sorting(), x, x0, strict=True)


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (lambda x: x.gather(1, x.argsort(1)[:, :2]), "gather"),
        (lambda x: x.topk(2, 1).values, "topk"),
        (lambda x: x.cummax(1).values, "cummax"),
        (lambda x: torch.where(x.argsort(1) > 2, x.sin(), x), "gt"),
    ],
)
def test_operations_without_a_rule(function: Any, operation: str) -> None:
    x, x0 = numbers(1, 6), numbers(1, 6, seed=1)
    found = attributed(function, x, x0, strict=False)
    assert operation in {each.operation for each in found.unruled}
    missed = sum(each.missed for each in found.unruled)
    assert missed >= float(found.delta.absolute.abs()) - 1e-12
    with pytest.raises(InvalidRequest, match="has no rule"):
        attributed(function, x, x0, strict=True)


def test_rule_gradient_is_measured_too(small: pg.Network) -> None:
    x = images(2)
    found = attribute(small, x, "fc:1", rule="gradient")
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(small.activations(leaf, "fc")[:, 1].sum(), leaf)
    assert torch.allclose(found.multipliers, gradient, atol=1e-6)
    assert found.unruled == ()
    assert found.delta.operations[0].operation == "relu"
    assert found.delta.operations[0].share > 1e-3


def test_numbers_read_off_the_input_do_not_go_unnoticed() -> None:
    found = attributed(lambda x: x / float(x.abs().max()), numbers(2, 5), 0.3 * numbers(2, 5, seed=1))
    assert found.delta.operations[0].operation == "div"
    assert found.delta.operations[0].share > 0.01


def test_control_flow_may_vary_but_not_between_input_and_reference() -> None:
    def flow(x: Tensor) -> Tensor:
        return x.tanh() if float(x.sum()) > 0 else x.sigmoid()

    x = torch.ones(1, 4)
    assert float(attributed(flow, x, 0.5 * x, dtype=torch.float32).delta.absolute) < 1e-6
    assert float(attributed(flow, -x, -0.5 * x, dtype=torch.float32).delta.absolute) < 1e-6
    with pytest.raises(
        InvalidRequest, match=r"another path.*tanh.*for the input.*sigmoid.*for the reference"
    ):
        attributed(flow, x, -x)


def test_random_numbers_are_the_same_for_input_and_reference() -> None:
    found = attributed(lambda x: functional.dropout(x, 0.5, training=True).tanh(), numbers(2, 50), 0)
    assert float(found.delta.absolute.abs().max()) < 1e-12


def test_normalized_logits(small: pg.Network) -> None:
    x = images(2)
    found = attribute(small, x, "fc:3", normalize_logits=True, dtype=torch.float64)
    each = [attribute(small, x, f"fc:{unit}", dtype=torch.float64).contributions for unit in range(5)]
    assert torch.allclose(found.contributions, each[3] - torch.stack(each).mean(0), atol=1e-12)
    with pytest.raises(InvalidRequest, match="normalize_logits"):
        attribute(small, x, pg.Energy("fc"), normalize_logits=True)


def test_float64_and_the_callers_modes(small: pg.Network) -> None:
    x = images(2)
    exact = attribute(small, x, "fc:3", dtype=torch.float64)
    assert exact.contributions.dtype == torch.float64
    assert float(exact.delta.relative.max()) < 1e-12
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = attribute(small, x, "fc:3")
    assert torch.allclose(found.contributions, exact.contributions.float(), atol=1e-6)


def test_the_module_is_left_as_it_is() -> None:
    module = Small().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    attribute(module, images(1), "fc:1")
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(not each._forward_hooks and not each._forward_pre_hooks for each in module.modules())


def test_no_hook_is_left_on_a_network(small: pg.Network) -> None:
    with pytest.raises(InvalidRequest):
        attribute(small, images(1), "conv:1", at="fc")
    assert all(not each._forward_hooks and not each._forward_pre_hooks for each in small.module.modules())


def test_images_of_other_kinds(small: pg.Network) -> None:
    pixels = (images(1)[0] * 255).round()
    picture = Image.fromarray(pixels.permute(1, 2, 0).to(torch.uint8).numpy())
    found = [
        attribute(small, each, "fc:3") for each in (picture, (pixels / 255).numpy(), (pixels / 255)[None])
    ]
    assert all(torch.allclose(found[0].contributions, each.contributions, atol=1e-7) for each in found)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"rule": "rescal"},
            InvalidRequest,
            r"unknown rule 'rescal'; valid: auto, rescale, revealcancel, gradient",
        ),
        ({"rule": {"conv": "reveal"}}, InvalidRequest, "unknown rule 'reveal' for layer 'conv'"),
        ({"rule": {"conf": "rescale"}}, UnknownLayer, "unknown layer 'conf'; near names: conv"),
        ({"rule": 3}, InvalidRequest, "rule 3 is of type int"),
        ({"at": "conf"}, UnknownLayer, "near names: conv"),
        ({"at": "fc", "objective": "conv:1"}, InvalidRequest, "layer 'fc' does not run before"),
        ({"objective": "fc:5"}, UnitOutOfRange, "units 0 to 4"),
        ({"objective": ["fc:1"] * 3}, InvalidRequest, r"3 objectives for 2 input\(s\)"),
        (
            {"reference": torch.zeros(3, 4, 4)},
            InvalidRequest,
            r"reference of shape \(3, 4, 4\) for inputs",
        ),
        (
            {"dtype": torch.float16},
            InvalidRequest,
            r"dtype torch.float16; valid: torch.float32, torch.float64",
        ),
        ({"method": "lime"}, InvalidRequest, "method 'lime'; valid: deeplift"),
        ({"max_rows": 0}, InvalidRequest, "max_rows 0"),
        ({"inputs": torch.rand(2, 1, 8, 8)}, InvalidRequest, r"inputs have shape \(2, 1, 8, 8\)"),
        ({"inputs": torch.full((3, 8, 8), torch.nan)}, InvalidRequest, "not finite"),
        ({"inputs": torch.rand(0, 3, 8, 8)}, InvalidRequest, "one or more"),
    ],
)
def test_errors(small: pg.Network, options: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"inputs": images(2), "objective": "fc:1", **options}
    with pytest.raises(error, match=message):
        attribute(small, given.pop("inputs"), given.pop("objective"), **given)


def test_errors_of_raw_modules() -> None:
    module, x = Small(), images(1)
    for objective, message in (("fc", "names no unit"), ("fc:x", "names no unit"), (3, "of type int")):
        with pytest.raises(InvalidRequest, match=message):
            attribute(module, x, objective)
    with pytest.raises(UnknownLayer, match="near names: conv"):
        attribute(module, x, "conf:1")
    with pytest.raises(InvalidRequest, match="type str"):
        attribute("small", x, "fc:1")  # type: ignore[arg-type]
    with pytest.raises(NetworkError, match="objective of input 1 is nan"):
        attribute(Function(torch.log), torch.tensor([[1.0], [-1.0]]), "output:0", reference=1.0)
    with pytest.raises(NetworkError, match="does not depend on the input"):
        attribute(
            Function(lambda x: functional.one_hot(torch.zeros(len(x)).long(), 3).float()), x, "output:0"
        )
