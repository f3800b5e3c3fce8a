"""The private copy: of anything that can be differentiated, and a reason for everything else."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from proxygrad import maximize
from proxygrad.errors import NetworkError
from proxygrad.networks.module_copy import let_recurrent_layers_run_backward, private_copy
from proxygrad.networks.network import Network
from tests.support.networks import Small, Unrolled, small

IMAGES = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))


def compiled(module: nn.Module) -> Any:
    return torch.compile(module, backend="eager")  # the default backend is seconds to import


def logits(module: nn.Module) -> Tensor:
    return Network(module, (3, 16, 16)).activations(IMAGES, "fc")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_become_float32(dtype: torch.dtype) -> None:
    module = Small().to(dtype)
    found = logits(module)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, Small().eval()(IMAGES), rtol=0.05, atol=0.02)
    assert module.conv.weight.dtype == dtype


def test_a_network_made_in_inference_mode_has_gradients() -> None:
    with torch.inference_mode():
        network = Network(Small(), (3, 16, 16), name="small")
    assert network.layers == small().layers
    images = IMAGES.clone().requires_grad_()
    (grad,) = torch.autograd.grad(network.activations(images, "fc").sum(), images)
    assert bool(grad.any())


def test_training_mode_is_left_for_evaluation_in_the_copy_alone() -> None:
    module = Small().train()
    torch.testing.assert_close(logits(module), Small().eval()(IMAGES))
    assert module.training
    assert module.bn.training


def test_integer_and_boolean_buffers_stay_as_they_are() -> None:
    module = Small()
    module.register_buffer("index", torch.arange(3))
    module.register_buffer("mask", torch.tensor([True, False]))
    module.register_buffer("causal", torch.full((2, 2), -torch.inf).triu(1))
    network = Network(module, (3, 16, 16))
    assert network.module.get_buffer("index").dtype == torch.int64
    assert network.module.get_buffer("mask").dtype == torch.bool
    assert network.info.digest != small().info.digest


def test_data_parallel_and_compiled_modules_are_unwrapped_also_inside() -> None:
    plain = small()
    for wrap in (nn.DataParallel, compiled):
        network = Network(wrap(Small()), (3, 16, 16), name="small")
        assert network.layers == plain.layers
        assert network.info.digest == plain.info.digest
    inside = Small()
    inside.conv = compiled(nn.DataParallel(inside.conv))
    assert Network(inside, (3, 16, 16)).layers == plain.layers
    assert type(inside.conv).__name__ == "OptimizedModule", "the user's own module was unwrapped"


def test_activations_that_a_tool_stored_on_the_module_do_not_stop_the_copy() -> None:
    """lucent leaves such hooks behind; `copy.deepcopy` alone then refuses."""

    class Recorder:
        def __init__(self, module: nn.Module) -> None:
            self.features: Tensor | None = None
            self.handle = module.register_forward_hook(self.note)

        def note(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
            self.features = output

    module = Small().eval()
    recorders = [Recorder(each) for each in module.modules()]
    expected = module(IMAGES)
    kept = [recorder.features for recorder in recorders]
    assert torch.equal(logits(module), expected)
    assert all(recorder.features is was for recorder, was in zip(recorders, kept, strict=True))


@pytest.mark.parametrize("register", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_backward_hooks_are_left_out(register: str) -> None:
    """They wrap values, so that no rectifier is seen behind them, nor may one work in place."""
    ran = list[str]()
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for each in module:
        getattr(each, register)(lambda *given: ran.append(register))
    network = Network(module, (3, 16, 16))
    maximize(network, "output:1", steps=2)
    assert network.unreached == {}
    assert network.layer("1").activation == "relu"
    assert ran == []
    module[0](IMAGES[:1].clone().requires_grad_()).sum().backward()
    assert ran == [register], "the owner's own was taken away"


@pytest.mark.parametrize("normed", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_reparameterized_weights_are_copied(normed: Any) -> None:
    module = Small()
    normed(module.conv)
    module.eval()
    torch.testing.assert_close(logits(module), module(IMAGES))


def test_weight_norm_of_the_old_kind_is_copied() -> None:
    module = Small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(module.conv)
    module.eval()
    torch.testing.assert_close(logits(module), module(IMAGES))


def with_attribute(**attributes: Any) -> nn.Module:
    module = Small()
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def with_buffer(value: Tensor) -> nn.Module:
    module = Small()
    module.register_buffer("extra", value, persistent=False)
    return module


def with_weights(value: float, dtype: torch.dtype = torch.float32) -> nn.Module:
    module = Small().to(dtype)
    nn.init.constant_(module.conv.weight, value)
    return module


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced: nn.Module = torch.jit.trace(Small().eval(), IMAGES)
        return traced


def quantized() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return with_attribute(fc=torch.ao.nn.quantized.Linear(6, 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: with_attribute(lock=threading.Lock()), "cannot copy the module Small: cannot pickle"),
        (lambda: with_weights(float("nan")), "'conv.weight' holds values that are not finite"),
        (lambda: with_weights(float("-inf")), "'conv.weight' holds values that are not finite"),
        (lambda: with_weights(1e300, torch.float64), "'conv.weight' holds values that are not finite"),
        (lambda: with_buffer(torch.tensor([torch.nan])), "'extra' holds values that are not finite"),
        (lambda: with_buffer(torch.tensor([torch.inf])), "'extra' holds values that are not finite"),
        (lambda: Small().to("meta"), "'conv.weight' is on the meta device and has no values"),
        (lambda: with_buffer(torch.zeros(1, device="meta")), "'extra' is on the meta device"),
        (lambda: with_attribute(fc=nn.LazyLinear(4)), "'fc.weight' is not initialized yet: run the module"),
        (quantized, "module 'fc' is quantized; only floating-point networks"),
        (scripted, "the module .* is TorchScript, whose layers and rectifiers cannot be reached"),
        (
            lambda: with_attribute(bn=nn.BatchNorm2d(8, track_running_stats=False)),
            "module 'bn' is a batch norm without running statistics",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch: lazy modules and complex modules are new
def test_what_cannot_be_visualized_says_why(make: Any, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        private_copy(make())


def test_a_lazy_module_that_has_run_is_a_module_like_any_other() -> None:
    module = Unrolled(steps=1)
    module.spare = nn.LazyConv2d(2, 1)
    module.spare(IMAGES)
    assert Network(module, (3, 16, 16)).unlisted["spare"] == "does not run when the network does"


def test_complex_weights_are_weights_like_others() -> None:
    class Spectral(nn.Module):
        def __init__(self, dtype: torch.dtype) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.weight, self.conv = nn.Parameter(torch.randn(3, 8, 5, dtype=dtype)), nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Any:
            return self.conv(torch.fft.irfft2(torch.fft.rfft2(x) * self.weight))

    network = Network(Spectral(torch.complex128), (3, 8, 8))
    assert network.module.get_parameter("weight").dtype == torch.complex64
    assert network.info.digest != Network(Spectral(torch.complex64), (3, 8, 8)).info.digest
    assert (
        maximize(network, "conv:1", steps=2).activation
        > maximize(network, "conv:1", steps=1).start_activation
    )


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_in_training_mode_without_dropout_where_cudnn_needs_that(kind: Any) -> None:
    layer = kind(4, 6, num_layers=2, dropout=0.5, batch_first=True).eval()
    x = torch.rand(2, 5, 4)
    expected, _ = layer(x)
    let_recurrent_layers_run_backward(layer)
    assert layer.training
    torch.testing.assert_close(layer(x)[0], expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_have_a_gradient_on_cuda(kind: Any) -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.rows = kind(24, 6, num_layers=2, dropout=0.5, batch_first=True)

        def forward(self, x: Tensor) -> Any:
            return self.rows(x.transpose(1, 2).flatten(2))[0].mean(1)

    on_cuda, on_cpu = (
        maximize(Network(Rows(), (3, 8, 8), device=device), "output:1", steps=3) for device in ("cuda", "cpu")
    )
    assert on_cuda.curve == pytest.approx(on_cpu.curve, rel=1e-2, abs=1e-3)


def test_a_copy_in_float64_has_what_the_module_holds() -> None:
    module = Small().double()
    with torch.no_grad():
        module.conv.weight.add_(1e-12)
    copy = private_copy(module, dtype=torch.float64)
    assert torch.equal(next(copy.parameters()), next(module.parameters()))
    assert private_copy(module).get_parameter("conv.weight").dtype == torch.float32
