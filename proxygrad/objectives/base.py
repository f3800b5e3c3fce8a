"""What can be read off the shape of a layer's output, without the batch: its positions and its units."""

from __future__ import annotations

from proxygrad.errors import InvalidRequest, ObjectiveMismatch, PositionOutOfRange, UnitOutOfRange


def grid(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The positions of a layer: ``(H, W)`` of ``(C, H, W)``, ``(T,)`` of ``(T, D)``, none of ``(N,)``."""
    return {3: shape[1:], 2: shape[:1]}.get(len(shape), ())


def units(shape: tuple[int, ...]) -> int:
    """How many units a layer ``(C, H, W)``, ``(T, D)`` or ``(N,)`` has."""
    return shape[0] if len(shape) == 3 else shape[-1]


def kind(shape: tuple[int, ...]) -> str:
    """What the error messages call such a layer."""
    return {3: "feature_map", 2: "tokens"}.get(len(shape), "vector")


def check_unit(unit: int, shape: tuple[int, ...], layer: str) -> None:
    """Raises `InvalidRequest` for what is no whole number, `UnitOutOfRange` for a unit that the
    layer lacks.
    """
    if not hasattr(unit, "__index__"):
        raise InvalidRequest(f"unit {unit!r} at layer {layer!r} is no whole number")
    if not 0 <= unit < units(shape):
        raise UnitOutOfRange(unit, units(shape), layer)


def check_position(position: tuple[int, ...], shape: tuple[int, ...], layer: str, objective: str) -> None:
    """Raises `ObjectiveMismatch` where there are no positions, `PositionOutOfRange` or `InvalidRequest`."""
    sides = grid(shape)
    if not sides:
        raise ObjectiveMismatch(f"{objective} with a position", layer, kind(shape), (objective,))
    if not all(hasattr(at, "__index__") for at in position):
        raise InvalidRequest(f"position {list(position)} at layer {layer!r} holds what is no whole number")
    if len(position) != len(sides) or not all(
        0 <= at < side for at, side in zip(position, sides, strict=True)
    ):
        raise PositionOutOfRange(position, sides, layer)
