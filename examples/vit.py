"""A vision transformer: one channel over all tokens, the class token, one patch, an MLP neuron, attention.

    python examples/vit.py                                   # random weights, 32 px: seconds
    python examples/vit.py --weights IMAGENET1K_V1 --steps 256   # vit_b_32, 350 MB to download once

Writes one PNG for each into the current directory. Layers of a transformer are of the kind ``tokens``: a
unit is a feature, a position is the number of a token, and token 0 is the class token.
"""

from __future__ import annotations

import argparse

import proxygrad as pg
from proxygrad.models.torchvision_compat import import_torchvision


def network(weights: str | None) -> pg.Network:
    """Models of torchvision bring their image size and ImageNet's mean and standard deviation."""
    models = import_torchvision().models
    if weights:
        return pg.Network(models.vit_b_32(weights=weights), name="vit_b_32")
    small = models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=128
    )
    return pg.Network(small, name="small_vit")


def objectives(network: pg.Network) -> dict[str, str]:
    """One of each sort, of the block in the middle."""
    blocks = [layer.name for layer in network.layers if layer.type == "EncoderBlock"]
    block = blocks[len(blocks) // 2]
    (tokens,) = network[block].grid
    return {
        "channel": f"{block}:7",
        "class_token": f"{block}:7@0",
        "patch": f"{block}:7@{tokens // 2}",
        "mlp_neuron": f"{block}.mlp.0:20",
        "attention": f"{block}.self_attention:7",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights")
    parser.add_argument("--steps", type=int, default=64)
    arguments = parser.parse_args()
    vit = network(arguments.weights)
    given = objectives(vit)
    for name, image in zip(given, pg.maximize(vit, list(given.values()), steps=arguments.steps), strict=True):
        image.save(f"vit_{name}.png")
        print(f"vit_{name}.png: {image.start_activation:.3g} -> {image.activation:.3g}")


if __name__ == "__main__":
    main()
