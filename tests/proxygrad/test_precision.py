"""What is chosen for which device, and that float32 is float32."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from proxygrad import Channel, Engine, Network, Spec, maximize
from proxygrad.engine.rendering import measure
from proxygrad.errors import NetworkError
from proxygrad.images import decode_png
from proxygrad.precision import Precision, arithmetic, chosen
from tests.support.networks import Small

CPU = torch.device("cpu")
LARGE = (224, 224)


def cpu(monkeypatch: pytest.MonkeyPatch, **capabilities: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


@pytest.mark.parametrize(
    ("capabilities", "size", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, LARGE, "bfloat16"),
        ({"avx512_bf16": True}, LARGE, "bfloat16"),
        ({"avx512_bf16": False, "avx2": True}, LARGE, "float32"),
        ({"avx2": True}, LARGE, "float32"),
        ({}, LARGE, "float32"),
        ({"avx512_bf16": True}, (64, 64), "bfloat16"),
        ({"avx512_bf16": True}, (224, 32), "float32"),
    ],
)
def test_auto_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], size: tuple[int, int], expected: str
) -> None:
    cpu(monkeypatch, **capabilities)
    assert chosen("auto", CPU, size) == expected


def test_auto_on_a_torch_that_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert chosen("auto", CPU, LARGE) == "float32"


def test_what_is_asked_for_is_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu(monkeypatch)
    assert chosen("bfloat16", CPU, LARGE) == "bfloat16"
    assert chosen("float32", CPU, LARGE) == "float32"


def test_what_there_is_not() -> None:
    with pytest.raises(NetworkError, match="precision 'half' is none of auto, float32, tf32, bfloat16"):
        chosen("half", CPU, LARGE)  # type: ignore[arg-type]
    with pytest.raises(
        NetworkError, match=r"'tf32' needs a GPU .* 'cpu' is not; valid here: auto, float32, bfl"
    ):
        chosen("tf32", CPU, LARGE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu() -> None:
    device = torch.device("cuda")
    modern = torch.cuda.get_device_capability(device) >= (8, 0)
    assert chosen("auto", device, LARGE) == ("tf32" if modern else "float32")
    a, b = (torch.randn((256, 256), generator=torch.Generator().manual_seed(seed)) for seed in range(2))
    exact = (a.double() @ b.double()).float()
    errors: dict[str, float] = {}
    for how in ("float32", "tf32") if modern else ("float32",):
        with arithmetic(how, device):
            errors[how] = float(((a.cuda() @ b.cuda()).cpu() - exact).abs().max())
    assert errors["float32"] < 1e-4
    assert errors.get("tf32", 1.0) > 1e-3


MULTIPLICATION = """
import torch
from proxygrad.precision import arithmetic
torch.set_float32_matmul_precision("medium")
cpu, backends = torch.device("cpu"), torch.backends
a, b = (torch.randn((128, 128), generator=torch.Generator().manual_seed(seed)) for seed in range(2))
def error():
    return float(((a.double() @ b.double()).float() - a @ b).abs().max())
coarse = error()
with arithmetic("float32", cpu):
    assert backends.mkldnn.matmul.fp32_precision == "ieee"
    assert error() < 1e-4, error()
assert error() == coarse
try:
    with arithmetic("bfloat16", cpu):
        assert error() < 1e-4, error()
        raise KeyError
except KeyError:
    pass
assert error() == coarse
assert torch.get_float32_matmul_precision() == "medium"
assert backends.cuda.matmul.fp32_precision == "tf32"
with arithmetic("tf32", torch.device("cuda")):
    assert backends.cuda.matmul.fp32_precision == backends.cudnn.conv.fp32_precision == "tf32"
    with arithmetic("float32", torch.device("cuda")):
        assert backends.cuda.matmul.fp32_precision == backends.cudnn.conv.fp32_precision == "ieee"
    assert backends.cuda.matmul.fp32_precision == backends.cudnn.conv.fp32_precision == "tf32"
print("fine", coarse)
"""


def test_float32_is_that_whatever_the_process_has_set_and_it_stays_set() -> None:
    """In a process of its own: the settings are those of the whole process."""
    command = [sys.executable, "-W", "error", "-c", MULTIPLICATION]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("fine")


def test_nothing_is_switched_where_nobody_has_asked_for_less() -> None:
    backends: Any = torch.backends
    before = backends.mkldnn.conv.fp32_precision
    with arithmetic("float32", CPU):
        assert backends.mkldnn.conv.fp32_precision == before


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_result_says_what_the_steps_were_computed_in(precision: Precision) -> None:
    network = Network(Small(), (3, 16, 16), name="small")
    ask = Spec(model="small", layer="conv2", unit=1, steps=6)
    with Engine(precision=precision) as engine:
        rendering = engine.submit(network, ask).result(30)
    assert rendering.result.dtype == precision
    image = decode_png(rendering.png)
    assert rendering.result.achieved_activation == measure(network, Channel("conv2", 1), image)
    outcome = maximize(network, Channel("conv2", 1), steps=6, precision=precision)
    assert outcome.dtype == precision
    assert outcome.activation == measure(network, Channel("conv2", 1), outcome.image)


def test_small_images_are_stepped_in_float32_by_default() -> None:
    outcome = maximize(Network(Small(), (3, 16, 16)), Channel("conv2", 1), steps=1)
    assert outcome.dtype == "float32"


class Canceling(Small):
    """Loses in bfloat16 what it keeps of its values in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((self.first(x) + 1000) - 1000)


class Pooling(nn.Module):
    """Adds up in float32, and into that nothing else can be added."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        sums = torch.zeros((len(x), 1, *y.shape[2:]), device=x.device)
        return sums.index_add(1, torch.zeros(4, dtype=torch.long, device=x.device), y)


@pytest.mark.parametrize(
    ("module", "layer"), [(Canceling(), "conv2"), (Pooling(), "output")], ids=["coarse", "impossible"]
)
def test_auto_leaves_bfloat16_where_it_does_not_do(
    monkeypatch: pytest.MonkeyPatch, module: nn.Module, layer: str
) -> None:
    cpu(monkeypatch, avx512_bf16=True)
    network = Network(module, (3, 64, 64))
    assert network.prepared([layer]).dtype == "float32"
    assert network.prepared(["first"]).dtype == ("bfloat16" if layer == "conv2" else "float32")


def test_bfloat16_that_cannot_be_is_an_error_when_asked_for() -> None:
    network = Network(Pooling(), (3, 64, 64), name="pooling")
    with pytest.raises(NetworkError, match="same scalar type; valid: auto, float32"):
        network.prepared(["output"], "bfloat16")
    assert Network(Canceling(), (3, 64, 64)).prepared(["conv2"], "bfloat16").dtype == "bfloat16"


def test_parameters_and_updates_stay_float32() -> None:
    network = Network(Small(), (3, 16, 16))
    reader = network.prepared(["conv2"], "bfloat16")
    images = torch.rand((2, 3, 16, 16)).requires_grad_()
    value = reader(images)["conv2"]
    (gradient,) = torch.autograd.grad(value.sum(), images)
    assert value.dtype == gradient.dtype == torch.float32
    value, expected = value.detach(), network.activations(images, "conv2").detach()
    assert 0 < float((value - expected).abs().max()) < 0.03 * float(expected.abs().max())
    assert {each.dtype for each in network.module.parameters()} == {torch.float32}


class Boundless(Small):
    """``log`` of what is partly negative, in a layer of its own, beside the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Logarithm()

    def forward(self, x: Tensor) -> Tensor:
        self.log(self.conv(x))
        return super().forward(x)


class Logarithm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


def test_bfloat16_is_refused_with_the_layer_whose_values_are_not_finite() -> None:
    network = Network(Boundless(), (3, 64, 64))
    with pytest.raises(NetworkError, match=r"'bfloat16' .* of layer 'log' are not finite; valid: auto"):
        network.prepared(["fc", "log"], "bfloat16")
    assert network.prepared(["fc"], "bfloat16").dtype == "bfloat16"
