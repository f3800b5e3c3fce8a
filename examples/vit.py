"""A vision transformer: one channel over all tokens, the class token, one patch, an MLP neuron, attention.

    python examples/vit.py                                   # random weights, 32 px: seconds
    python examples/vit.py --weights IMAGENET1K_V1 --steps 256   # vit_b_32, 350 MB to download once

Writes one PNG for each into the current directory. Layers of a transformer are of the kind ``tokens``: a
unit is a feature, a position is the number of a token, and token 0 is the class token.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from proxygrad import Channel, Network, Neuron, Objective, maximize
from proxygrad.images import encode_png
from proxygrad.models.torchvision_compat import import_torchvision

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision trains


def network(weights: str | None) -> Network:
    models = import_torchvision().models
    if weights:
        return Network(models.vit_b_32(weights=weights), (3, 224, 224), MEAN, STD, name="vit_b_32")
    small = models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=128
    )
    return Network(small, (3, 32, 32), MEAN, STD, name="small_vit")


def questions(network: Network) -> dict[str, Objective]:
    """One of each sort, of the block in the middle."""
    blocks = [layer.name for layer in network.units() if layer.type == "EncoderBlock"]
    block = blocks[len(blocks) // 2]
    (tokens,) = network.layer(block).grid
    return {
        "channel": Channel(block, 7),
        "class_token": Neuron(block, 7, (0,)),
        "patch": Neuron(block, 7, (tokens // 2,)),
        "mlp_neuron": Channel(f"{block}.mlp.0", 20),
        "attention": Channel(f"{block}.self_attention", 7),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights")
    parser.add_argument("--steps", type=int, default=64)
    arguments = parser.parse_args()
    vit = network(arguments.weights)
    asked = questions(vit)
    for name, outcome in zip(asked, maximize(vit, list(asked.values()), steps=arguments.steps), strict=True):
        path = Path(f"vit_{name}.png")
        path.write_bytes(encode_png(outcome.image))
        print(f"{path}: {outcome.start_activation:.3g} -> {outcome.achieved_activation:.3g}")


if __name__ == "__main__":
    main()
