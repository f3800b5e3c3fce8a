"""Precision: whether the steps compute in float32, TF32 or bfloat16, by setting and by device.

Only the network's forward and backward pass are meant. Parameters, penalties and updates are float32 always,
and activations that are reported are read in float32 (`proxygrad.networks.network.Network.read`).

How the choice of "auto" was found: ``docs/measurements/speed.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch

from proxygrad.errors import NetworkError

Arithmetic = Literal["float32", "tf32", "bfloat16"]
Precision = Literal["auto", "float32", "tf32", "bfloat16"]

#: From this generation on (Ampere) a GPU multiplies in TF32 and in bfloat16.
CAPABILITY = (8, 0)
#: On the CPU, networks of smaller images gain little in bfloat16, and lose when one image is stepped alone.
SMALLEST_PX = 64


def chosen(precision: Precision, device: torch.device, size: tuple[int, int]) -> Arithmetic:
    """The arithmetic that ``precision`` means on ``device``, for images of ``size`` (height, width).

    "auto": bfloat16 on CPUs with instructions for it, unless images are smaller than `SMALLEST_PX`; TF32 on
    GPUs that have it; else float32. Raises `NetworkError` for a name that is none, and for TF32 where there
    is none.
    """
    if precision not in get_args(Precision):
        raise NetworkError(f"precision {precision!r} is none of {', '.join(get_args(Precision))}")
    if precision == "auto":
        return _fastest(device, size)
    if precision == "tf32" and not _has_tf32(device):
        raise NetworkError(
            f"precision 'tf32' needs a GPU of compute capability {CAPABILITY[0]}.{CAPABILITY[1]} or later, "
            f"which {str(device)!r} is not; valid here: auto, float32, bfloat16"
        )
    return precision


def _fastest(device: torch.device, size: tuple[int, int]) -> Arithmetic:
    if device.type == "cpu":
        return "bfloat16" if min(size) >= SMALLEST_PX and _cpu_multiplies_bfloat16() else "float32"
    return "tf32" if _has_tf32(device) else "float32"


def _has_tf32(device: torch.device) -> bool:
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= CAPABILITY


def _cpu_multiplies_bfloat16() -> bool:
    """Whether the CPU has AVX512-BF16 or AMX. Without them bfloat16 is emulated, and slower than float32.

    A PyTorch that cannot tell counts as "no".
    """
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def arithmetic(how: Arithmetic, device: torch.device) -> Iterator[None]:
    """Within, float32 tensors on ``device`` are multiplied in float32 proper, or in TF32 for "tf32".

    PyTorch keeps that per process and not per thread: the earlier setting comes back at the end, but other
    threads see this one meanwhile. Convolutions on CUDA use TF32 by default, so float32 has to be set.
    "bfloat16" is about what remains in float32, and that is float32 proper. cuDNN takes algorithms that give
    the same bits each time.
    """
    target = "tf32" if how == "tf32" else "ieee"
    switches = _switches(device)
    before = [each.fp32_precision for each in switches]
    cudnn = torch.backends.cudnn
    searching = cudnn.deterministic, cudnn.benchmark
    try:
        if device.type == "cuda":
            cudnn.deterministic, cudnn.benchmark = True, False
        for each, value in zip(switches, before, strict=True):
            if value != target and (value, target) != ("none", "ieee"):  # which mean the same
                each.fp32_precision = target
        yield
    finally:
        if device.type == "cuda":
            cudnn.deterministic, cudnn.benchmark = searching
        for each, value in zip(switches, before, strict=True):
            if each.fp32_precision != value:
                each.fp32_precision = value


def _switches(device: torch.device) -> tuple[Any, ...]:
    backends: Any = torch.backends
    if device.type == "cuda":
        return backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn
    return backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn
