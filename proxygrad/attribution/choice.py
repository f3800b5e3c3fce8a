"""Which of the rules Rescale, RevealCancel and gradient a function of one number each gets."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, get_args

from proxygrad.errors import InvalidRequest, UnknownLayer

RuleName = Literal["auto", "rescale", "revealcancel", "gradient"]
#: One rule for all layers, or one by layer, with "default" for the others, which is else "auto".
RuleLike = RuleName | Mapping[str, RuleName]


def checked(rule: RuleLike, layers: Collection[str]) -> dict[str, RuleName]:
    """By layer, with "default". Raises `InvalidRequest` for an unknown rule, `UnknownLayer` for a layer that
    is none of ``layers``."""
    given: Mapping[str, RuleName] = {"default": rule} if isinstance(rule, str) else rule
    if not isinstance(given, Mapping):
        raise InvalidRequest(
            f"rule {rule!r} is of type {type(rule).__name__}; valid: a name, or one by layer"
        )
    for layer, name in given.items():
        if name not in get_args(RuleName):
            where = "" if isinstance(rule, str) else f" for layer {layer!r}"
            raise InvalidRequest(f"unknown rule {name!r}{where}; valid: {', '.join(get_args(RuleName))}")
        if layer != "default" and layer.partition("@")[0] not in layers:
            raise UnknownLayer(layer, [*layers])
    return {"default": "auto", **given}


def chosen(rules: Mapping[str, RuleName], layers: tuple[str, ...]) -> RuleName:
    """The rule of the innermost of the modules that ran, by the call or by the module."""
    for layer in reversed(layers):
        for name in (layer, layer.partition("@")[0]):
            if name in rules:
                return rules[name]
    return rules["default"]
