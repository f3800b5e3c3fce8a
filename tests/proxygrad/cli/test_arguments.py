"""Every setting is an option of the command line, and reaches the question as it was typed."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from proxygrad.cli.arguments import add_question, describe, picture_paths, spec_from
from proxygrad.errors import InvalidRequest
from proxygrad.spec import ImageResult, Result, Spec
from proxygrad.spec.settings import AscentSettings

TYPED = {
    "preset": "fast",
    "proxy": "network",
    "slope": 0.25,
    "slope_end": 0.5,
    "slope_hold": 0.25,
    "starts": 4,
    "slope_end_at": 0.75,
    "spread_max_pool": 0.125,
    "parameterization": "fourier",
    "update": "adam",
    "gaf": "atan",
    "gaf_beta": 10.0,
    "robustness": "standard",
    "total_variation": 0.5,
    "l2": 0.75,
    "steps": 7,
    "step_size": 0.5,
    "start_noise": 0.0,
    "size_px": 48,
    "seed": 3,
}


def parse(*words: str) -> Spec:
    parser = argparse.ArgumentParser()
    add_question(parser)
    return spec_from(parser.parse_args(["digits", "layer3", "7", *words]))


def test_nothing_typed_is_the_defaults() -> None:
    assert parse() == Spec(model="digits", layer="layer3", unit=7)


def test_every_setting_can_be_typed() -> None:
    assert {*TYPED, "blur_px", "gaf_alpha", "trial_steps", "sampler", "langevin"} == set(
        AscentSettings.model_fields
    )
    for name, value in {**TYPED, "blur_px": 1.5, "gaf_alpha": 0.2}.items():
        option = f"--{name.replace('_', '-')}"
        words = [option] if value is True else [option, str(value)]
        words += ["--preset", "max"] if name == "blur_px" else []  # it is of pixels
        words += ["--update", "sgd"] if name == "gaf_alpha" else []  # normalized ascent has none
        words += ["--slope-end", "0"] if name in ("slope_hold", "slope_end_at") else []
        assert getattr(parse(*words), name) == value


def test_the_slope_is_a_number_or_a_name() -> None:
    assert parse("--slope", "auto", "--starts", "3", "--trial-steps", "2").slope == "auto"
    with pytest.raises(InvalidRequest, match="slope 'steep': should be 0 to 1, or 'auto'"):
        parse("--slope", "steep")


def test_chains_can_be_typed() -> None:
    spec = parse("--sampler", "langevin", "--images", "4", "--langevin-chains", "2", "--langevin-pull", "0.5")
    assert (spec.sampler, spec.images, spec.lanes) == ("langevin", 4, 2)
    assert spec.langevin is not None
    assert (spec.langevin.chains, spec.langevin.pull) == (2, 0.5)
    with pytest.raises(InvalidRequest, match="langevin applies to sampler 'langevin', not 'ascent'"):
        parse("--langevin-pull", "0.5")


def test_a_value_out_of_its_limits_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"start_noise 0\.7: .* 0\.5"):
        parse("--start-noise", "0.7")


def test_several_images_and_a_comparison_can_be_typed() -> None:
    spec = parse("--images", "4", "--diversity", "0.5", "--compare")
    assert (spec.images, spec.diversity, spec.compare) == (4, 0.5, True)
    with pytest.raises(InvalidRequest, match=r"^diversity 0.5 with images 1: .* valid: images 2 to 16"):
        parse("--diversity", "0.5")


def of(spec: Spec) -> Result:
    image = {"start_activation": 0.0, "stuck": False, "curve": (0.0, 1.0), "steps_done": 1}
    images = tuple(
        ImageResult.model_validate(
            {
                "role": "proxygrad" if number < spec.images else "baseline",
                "seed": spec.seed + number % spec.images,
                "achieved_activation": float(number),
                **image,
            }
        )
        for number in range(spec.lanes)
    )
    about = {"width_px": 8, "height_px": 8, "digest": "", "engine_version": "1", "device": "cpu"}
    whole = {**image, **about, "dtype": "float32", "ran_s": 1.0, "steps_per_s": 1.0, "achieved_activation": 0}
    return Result.model_validate({**whole, "spec": spec.model_dump()}).of(images)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["out.png"]),
        (["--compare"], ["out.png", "out-baseline.png"]),
        (["--images", "2"], ["out-0.png", "out-1.png"]),
        (
            ["--images", "2", "--compare"],
            ["out-0.png", "out-1.png", "out-baseline-0.png", "out-baseline-1.png"],
        ),
    ],
)
def test_every_picture_has_a_file_of_its_own(words: list[str], names: list[str]) -> None:
    paths = picture_paths(Path("pictures/out.png"), of(parse(*words)))
    assert paths == [Path("pictures") / name for name in names]


def test_what_plain_ascent_achieved_is_told_beside_it() -> None:
    told = dict(describe(of(parse("--images", "2", "--compare", "--seed", "5"))))
    assert (told["of the images"], told["of plain ascent"]) == ("0, 1", "2, 3")
    assert (told["achieved activation"], told["slope, steps, seed"]) == ("1", "0.02, 1, 6")
    assert told["image"] == "8 x 8 px, the best of 2"
    assert "of plain ascent" not in dict(describe(of(parse())))
