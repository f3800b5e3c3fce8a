"""A model that exists on paper only, and questions about it; needs no torch."""

from __future__ import annotations

from proxygrad.spec import LayerInfo, ModelInfo, Result, Spec

UNITS = 10_000

MODEL = ModelInfo(
    name="tiny",
    input_shape=(1, 8, 8),
    digest="0" * 64,
    engine_version="1",
    layers=(LayerInfo(name="conv", kind="feature_map", type="Conv2d", shape=(UNITS, 8, 8), units=UNITS),),
)


def question(unit: int = 0, steps: int = 4) -> Spec:
    """What does this unit respond to?"""
    return Spec(model="tiny", layer="conv", unit=unit, steps=steps)


def outcome(spec: Spec) -> Result:
    """An answer to it, with the unit's number as activation of image 0, and one more of each further one."""
    whole = Result(
        spec=spec,
        achieved_activation=float(spec.unit),
        start_activation=0.0,
        stuck=False,
        curve=tuple(float(step) for step in range(spec.steps + 1)),
        steps_done=spec.steps,
        width_px=8,
        height_px=8,
        digest=MODEL.digest,
        engine_version=MODEL.engine_version,
        device="cpu",
        dtype="float32",
        ran_s=1.0,
        steps_per_s=float(spec.steps),
    )
    if spec.lanes == 1:
        return whole
    first = whole.image(0)
    return whole.of(
        tuple(
            first.model_copy(
                update={
                    "role": "proxygrad" if number < spec.images else "baseline",
                    "seed": spec.seed + number % spec.images,
                    "achieved_activation": first.achieved_activation + number,
                }
            )
            for number in range(spec.lanes)
        )
    )
