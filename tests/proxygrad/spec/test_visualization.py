"""A request is checked and completed from the metadata of a model, and has one id everywhere."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from proxygrad.errors import (
    ObjectiveMismatch,
    PositionMismatch,
    PositionOutOfRange,
    UnitOutOfRange,
    UnknownLayer,
)
from proxygrad.spec import LayerInfo, ModelInfo, Spec
from proxygrad.spec.robustness import Robustness
from proxygrad.spec.settings import PRESETS, AscentSettings

MODEL = ModelInfo(
    name="digits",
    input_shape=(1, 32, 32),
    digest="d" * 64,
    engine_version="1",
    layers=(
        LayerInfo(name="layer3", kind="feature_map", type="Sequential", shape=(64, 4, 6), units=64),
        LayerInfo(name="blocks", kind="tokens", type="Block", shape=(17, 64), units=64),
        LayerInfo(name="pooled", kind="vector", type="Flatten", shape=(64,), units=64),
        LayerInfo(name="fc", kind="logits", type="Linear", shape=(10,), units=10),
    ),
)


def ask(**settings: object) -> Spec:
    return Spec.model_validate({"model": "digits", "layer": "layer3", "unit": 7, **settings})


@pytest.mark.parametrize(
    ("layer", "objective"),
    [("layer3", "channel"), ("blocks", "channel"), ("pooled", "neuron"), ("fc", "logit")],
)
def test_the_objective_follows_the_kind_of_layer(layer: str, objective: str) -> None:
    assert ask(layer=layer).resolve(MODEL).objective == objective


def test_the_size_is_the_models_own_and_open_where_that_is_not_square() -> None:
    assert ask().resolve(MODEL).size_px == 32
    assert ask(size_px=64).resolve(MODEL).size_px == 64
    assert ask().resolve(MODEL.model_copy(update={"input_shape": (1, 32, 48)})).size_px is None


def test_resolving_twice_changes_nothing() -> None:
    once = ask(objective="neuron", position=(3, 5)).resolve(MODEL)
    assert once.resolve(MODEL) == once


def test_a_single_logit_has_none_to_be_above() -> None:
    lonely = LayerInfo(name="fc", kind="logits", type="Linear", shape=(1,), units=1)
    model = MODEL.model_copy(update={"layers": (lonely,)})
    assert ask(layer="fc", unit=0).resolve(model).objective == "logit"
    with pytest.raises(ObjectiveMismatch, match=r"'margin' does not apply to layer 'fc' .*: logit, neuron"):
        ask(layer="fc", unit=0, objective="margin").resolve(model)
    assert ask(layer="fc", unit=0, objective="margin").resolve(MODEL).objective == "margin"


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"layer": "layer4"}, UnknownLayer, r"unknown layer of model 'digits': 'layer4'; near names: layer3"),
        ({"unit": 64}, UnitOutOfRange, r"unit 64 is out of range: layer 'layer3' has units 0 to 63"),
        ({"layer": "fc", "unit": 10}, UnitOutOfRange, r"units 0 to 9"),
        (
            {"objective": "logit"},
            ObjectiveMismatch,
            r"'logit' does not apply to layer 'layer3' .*: channel, neuron",
        ),
        ({"objective": "neuron", "position": (4, 0)}, PositionOutOfRange, r"rows 0 to 3 and columns 0 to 5"),
        ({"objective": "neuron", "position": (0, 6), "size_px": 32}, PositionOutOfRange, r"columns 0 to 5"),
        ({"objective": "neuron", "position": (1,)}, PositionOutOfRange, r"position \[1\] .* rows 0 to 3"),
        (
            {"layer": "blocks", "objective": "neuron", "position": (17,)},
            PositionOutOfRange,
            r"tokens 0 to 16",
        ),
        ({"position": (0, 0)}, PositionMismatch, r"^position needs objective 'neuron', not 'channel'$"),
        ({"layer": "pooled", "position": (0, 0)}, PositionMismatch, r"^position does not apply .* 'pooled'"),
    ],
)
def test_what_the_model_cannot_answer_names_value_and_choices(
    settings: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ask(**settings).resolve(MODEL)


@pytest.mark.parametrize(
    "settings",
    [
        {"unit": -1},
        {"slope": -0.1},
        {"slope": 1.5},
        {"slope": float("nan")},
        {"steps": 0},
        {"steps": 4097},
        {"size_px": 7},
        {"size_px": 1025},
        {"step_size": 0.0},
        {"seed": -1},
        {"seed": 2**63},
        {"objective": "texture"},
        {"position": (1, 2, 3)},
        {"position": ()},
        {"preset": "best"},
        {"blur_px": 1, "parameterization": "fourier"},
        {"blur_px": 1},
        {"spread_max_pool": 1.1},
        {"gaf_alpha": 0.0, "update": "sgd"},
        {"gaf_beta": float("inf")},
        {"start_noise": 0.51},
        {"start_noise": 0.0, "parameterization": "maco"},
        {"position": (-1, 0), "objective": "neuron"},
        {"model": ""},
        {"steeps": 4},
    ],
)
def test_values_outside_their_limits_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ask(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gaf_alpha": 0.2}, "gaf_alpha 0.2 has no effect with update 'normalized'"),
        (
            {"gaf_alpha": 0.2, "update": "whitened", "preset": "max", "gaf": "log"},
            "gaf_alpha 0.2 has no effect with update 'whitened'",
        ),
        ({"gaf_alpha": 0.2, "total_variation": 1.0}, "no effect with update 'normalized'"),
        ({"gaf_beta": 10, "gaf": "none"}, "gaf_beta 10 has no effect with gaf 'none'; valid with gaf 'atan'"),
        ({"gaf_beta": 10, "preset": "max", "gaf": "none"}, "gaf_beta 10 has no effect with gaf 'none'"),
        ({"gaf_alpha": 0.2, "gaf": "none", "update": "sgd"}, "gaf_alpha 0.2 has no effect with gaf 'none'"),
    ],
)
def test_parameters_of_a_gradient_activation_without_effect_are_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        ask(**settings)


def test_a_gradient_activation_has_parameters_and_an_id_of_its_own() -> None:
    changed = ask(gaf="atan", gaf_alpha=0.2, gaf_beta=10, update="sgd")
    plain = ask(gaf="atan", update="sgd")
    assert (changed.gaf_alpha, changed.gaf_beta) == (0.2, 10)
    assert changed.resolve(MODEL).identity(MODEL) != plain.resolve(MODEL).identity(MODEL)
    default = ask(gaf="atan", gaf_alpha=0.1, gaf_beta=20, update="sgd")
    assert default.resolve(MODEL).identity(MODEL) == plain.resolve(MODEL).identity(MODEL)


def test_a_preset_fills_in_what_is_not_given() -> None:
    resolved = ask(preset="natural", steps=10).resolve(MODEL)
    assert (resolved.steps, resolved.robustness) == (10, "standard")
    assert resolved.resolve(MODEL) == resolved
    assert Spec.model_validate_json(resolved.model_dump_json()).resolve(MODEL) == resolved
    assert resolved.identity(MODEL) == ask(preset="natural", steps=10).identity(MODEL)
    assert resolved.identity(MODEL) != ask(preset="max", steps=10).identity(MODEL)


def test_the_default_preset_is_natural() -> None:
    """The fields' own defaults are its values, so that reading the one is reading the other."""
    assert AscentSettings().preset == "natural"
    assert AscentSettings().completed() == AscentSettings()
    assert ask().identity(MODEL) == ask(preset="natural").identity(MODEL)
    assert len({frozenset(chosen) for chosen in PRESETS.values()}) == 1


def test_a_preset_is_the_settings_it_stands_for() -> None:
    spelled_out = {**PRESETS["fast"], "preset": "natural"}
    assert ask(**spelled_out).identity(MODEL) == ask(preset="fast").identity(MODEL)


def test_robustness_is_asked_for_by_name() -> None:
    own = {"crop": 0.5}
    assert AscentSettings.model_validate({"robustness": own}).robustness == Robustness(crop=0.5)
    for given in (own, Robustness(crop=0.5)):
        with pytest.raises(ValidationError, match="'none' or 'standard'"):
            ask(robustness=given)


def test_the_id_is_the_same_for_the_same_question() -> None:
    identity = ask().identity(MODEL)
    assert identity == ask(objective="channel", size_px=32, slope=0.02).identity(MODEL)
    assert len(identity) == 32
    assert int(identity, 16) >= 0


@pytest.mark.parametrize(
    "changed",
    [
        {"unit": 8},
        {"slope": 0.0},
        {"steps": 129},
        {"seed": 1},
        {"size_px": 33},
        {"spread_max_pool": 0.1},
        {"start_noise": 0.0},
    ],
)
def test_the_id_changes_with_every_setting(changed: dict[str, object]) -> None:
    assert ask(**changed).identity(MODEL) != ask().identity(MODEL)


@pytest.mark.parametrize("changed", [{"digest": "e" * 64}, {"engine_version": "2"}])
def test_the_id_changes_with_weights_and_method(changed: dict[str, str]) -> None:
    assert ask().identity(MODEL.model_copy(update=changed)) != ask().identity(MODEL)
