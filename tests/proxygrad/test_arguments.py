"""Every setting is an option of the command line, and reaches the question as it was typed."""

from __future__ import annotations

import argparse

import pytest

from proxygrad.arguments import add_question, spec_from
from proxygrad.errors import BadRequest
from proxygrad.settings import Settings
from proxygrad.spec import Spec

TYPED = {
    "preset": "fast",
    "proxy": "network",
    "slope": 0.25,
    "slope_end": 0.5,
    "spread_max_pool": 0.125,
    "parameterization": "fourier",
    "update": "adam",
    "gaf": "atan",
    "robustness": "standard",
    "total_variation": 0.5,
    "l2": 0.75,
    "steps": 7,
    "step_size": 0.5,
    "start_noise": 0.0,
    "size_px": 48,
    "seed": 3,
    "solo": True,
}


def parse(*words: str) -> Spec:
    parser = argparse.ArgumentParser()
    add_question(parser)
    return spec_from(parser.parse_args(["digits", "layer3", "7", *words]))


def test_nothing_typed_is_the_defaults() -> None:
    assert parse() == Spec(model="digits", layer="layer3", unit=7)


def test_every_setting_can_be_typed() -> None:
    assert {*TYPED, "blur_px"} == set(Settings.model_fields)
    for name, value in {**TYPED, "blur_px": 1.5}.items():
        option = f"--{name.replace('_', '-')}"
        words = [option] if value is True else [option, str(value)]
        assert getattr(parse(*words), name) == value


def test_a_value_out_of_its_limits_is_named() -> None:
    with pytest.raises(BadRequest, match=r"start_noise 0\.7: .* 0\.5"):
        parse("--start-noise", "0.7")
