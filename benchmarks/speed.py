"""How long does a step take, and how long an image, beside lucent?

``steps``: each row is one step (forward, backward, update) of ``--batch`` images at 224 px, on one thread,
measured in turns: one step of each variant, then the next of each; medians. "lucent" is torch-lucent 0.1.8
with its defaults, if it is installed (with kornia 0.4.1); else a loop that does what it does: the whole
network whatever the target, hooks on all modules, gradients of all weights, and nothing else. The variants of
ours are ``plain`` (the network as it is, cut at the target), ``folded``, ``layout`` (folded and
channels-last), which is what float32 means, and ``bf16``. Weights are random but for SqueezeNet's, when
``--squeezenet`` names them.

``race``: seconds until the image of one channel is done: lucent's 512 steps, against the fewest steps of
``--preset``, of 8, 16, 32, …, that reach the same activation; making the working copy is included.
Activations are those of the final image on the network itself in float32. lucent's image is one that stands
being moved about; so is that of preset ``natural``.

    python benchmarks/speed.py steps --squeezenet squeezenet1_0.safetensors
    python benchmarks/speed.py race --squeezenet squeezenet1_0.safetensors
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from proxygrad import Channel, Network, maximize
from proxygrad.engine.group import Group, GroupKey
from proxygrad.engine.lane import Lane
from proxygrad.engine.rendering import measure
from proxygrad.models.torchvision_compat import import_torchvision
from proxygrad.models.weights import load_into, read_state_dict
from proxygrad.networks.layer_reader import LayerReader
from proxygrad.networks.variants import EXACT, VariantSpec
from proxygrad.spec.settings import AscentSettings

TARGETS = (
    ("resnet18", "layer2"),
    ("resnet18", "layer4"),
    ("squeezenet1_0", "features.7"),
    ("vgg16", "features.15"),
)
NORMALIZATION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIDE_PX = 224
CHANNEL = 20
ENDLESS = 4096

models = import_torchvision().models  # before lucent, which imports torchvision by itself
try:
    from lucent.optvis import render  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    render = None


def build(name: str, squeezenet: Path | None) -> nn.Module:
    torch.manual_seed(0)
    module: nn.Module = models.get_model(name, weights=None)
    if name == "squeezenet1_0" and squeezenet is not None:
        load_into(module, read_state_dict(squeezenet), squeezenet.name)
    return module.eval()


def lucent_steps(module: nn.Module, layer: str, channel: int, batch: int, steps: int) -> Any:
    """Its final image ``(batch, 128, 128, 3)``."""
    from lucent.optvis import param

    (image,) = render.render_vis(
        module,
        f"{layer.replace('.', '_')}:{channel}",
        lambda: param.image(128, batch=batch),
        thresholds=(steps,),
        progress=False,
        show_image=False,
    )
    return image


def like_lucent(module: nn.Module, layer: str, channel: int, batch: int, steps: int) -> None:
    """The network's part of it, for where it is not installed."""
    kept: dict[nn.Module, Tensor] = {}
    for each in module.modules():
        each.register_forward_hook(lambda module, inputs, output: kept.update({module: output}))
    image = torch.rand((batch, 3, SIDE_PX, SIDE_PX), requires_grad=True)
    optimizer = torch.optim.Adam([image], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        module(image)
        (-kept[module.get_submodule(layer)][:, channel].mean()).backward()
        optimizer.step()


def unhooked(run: Callable[..., Any], module: nn.Module, *given: Any) -> None:
    """Run, and take off the hooks that stay on the module, so that they do not pile up."""
    run(module, *given)
    for each in module.modules():
        each._forward_hooks.clear()


def variants(network: Network, layer: str) -> dict[str, LayerReader]:
    """The same network, step by step towards what is used."""
    factory = network._variants
    pairs = network.prepared([layer], "float32")._variant.spec.pairs
    kinds = {
        "plain": EXACT,
        "folded": VariantSpec(pairs),
        "layout": VariantSpec(pairs, channels_last=True),
        "bf16": VariantSpec(pairs, channels_last=True, bfloat16=True),
    }
    read = partial(network._read, layers=[layer])
    again = partial(factory.variant, VariantSpec())
    found = {}
    for name, kind in kinds.items():
        made = factory.variant(kind) if kind != EXACT else factory.exact
        found[name] = LayerReader(
            read, (made, again), "bfloat16" if kind.bfloat16 else "float32", network.device
        )
    return found


def stepping(network: Network, layer: str, reader: LayerReader, batch: int) -> Callable[[], Any]:
    settings = [AscentSettings(preset="max", steps=ENDLESS, seed=seed).completed() for seed in range(batch)]
    lanes = [Lane(each, Channel(layer, CHANNEL)) for each in settings]
    group = Group(GroupKey.of(network, lanes[0], (SIDE_PX, SIDE_PX)), reader)
    for lane in lanes:
        group.join(lane)
    return group.step


def in_turns(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - began)
    return {name: median(each) for name, each in times.items()}


def steps(arguments: argparse.Namespace) -> None:
    """The table of single steps."""
    theirs = lucent_steps if render else like_lucent
    print(f"{'network':<14} {'target':<11} {'batch':>5} {'lucent':>9}", end="")
    print("".join(f"{name:>16}" for name in ("plain", "folded", "layout", "bf16")))
    for name, layer in [target for target in TARGETS if target[0] in arguments.networks]:
        module = build(name, arguments.squeezenet)
        network = Network(module, (3, SIDE_PX, SIDE_PX), *NORMALIZATION)
        readers = variants(network, layer)
        for batch in arguments.batch:
            runs = {key: stepping(network, layer, reader, batch) for key, reader in readers.items()}
            runs["lucent"] = partial(unhooked, theirs, module, layer, CHANNEL, batch, 2)
            took = in_turns(runs, arguments.rounds)
            took["lucent"] /= 2
            row = f"{name:<14} {layer:<11} {batch:>5} {took['lucent'] * 1e3:>6.0f} ms"
            for key in readers:
                row += f"{took[key] * 1e3:>7.0f} ms {took['lucent'] / took[key]:>4.1f}x"
            print(row, flush=True)


def race(arguments: argparse.Namespace) -> None:
    """Seconds to the same activation."""
    layer = "features.7"
    module = build("squeezenet1_0", arguments.squeezenet)
    network = Network(module, (3, SIDE_PX, SIDE_PX), *NORMALIZATION)
    print("channel  lucent s  achieved   ours s  steps  achieved  ratio")
    for channel in arguments.channels:
        objective = Channel(layer, channel)
        began = time.perf_counter()
        image = lucent_steps(copy.deepcopy(module), layer, channel, 1, 512)
        theirs_s = time.perf_counter() - began
        seen = functional.interpolate(  # as its last step hands it to the network
            torch.tensor(image).permute(0, 3, 1, 2), size=SIDE_PX, mode="bilinear", align_corners=True
        )
        theirs = measure(network, objective, seen[0])
        count, ours_s, achieved = 4, 0.0, float("-inf")
        while achieved < theirs and count < 512:
            count *= 2
            fresh = Network(module, (3, SIDE_PX, SIDE_PX), *NORMALIZATION)  # preparing it counts
            began = time.perf_counter()
            outcome = maximize(fresh, objective, steps=count, preset=arguments.preset)
            ours_s, achieved = time.perf_counter() - began, outcome.activation
        print(
            f"{channel:>7} {theirs_s:>9.1f} {theirs:>9.3f} {ours_s:>8.2f} {count:>6} {achieved:>9.3f} "
            f"{theirs_s / ours_s:>5.0f}x",
            flush=True,
        )


def machine() -> str:
    """The processor, as Linux names it, and the PyTorch."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names) or '?'} x {names[0] if names else 'unknown'}, torch {torch.__version__}"


def main() -> None:
    """Measure and print one of the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("steps", "race"))
    parser.add_argument("--squeezenet", type=Path, help="weights of torchvision's squeezenet1_0")
    names = list(dict.fromkeys(name for name, _ in TARGETS))
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--preset", default="max")
    parser.add_argument("--channels", type=int, nargs="+", default=[3, 20, 41])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    if arguments.what == "race" and render is None:
        parser.error("a race needs lucent: pip install torch-lucent==0.1.8 kornia==0.4.1")
    (steps if arguments.what == "steps" else race)(arguments)


if __name__ == "__main__":
    main()
