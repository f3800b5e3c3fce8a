"""A request for chains: what is filled in, what is refused, and what its id depends on."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from proxygrad.errors import InvalidRequest, SizeUnsupported
from proxygrad.spec import LayerInfo, ModelInfo, Spec

LAYER = LayerInfo(name="fc", kind="logits", type="Linear", shape=(10,), units=10)
MODEL = ModelInfo(
    name="m", input_shape=(1, 32, 32), digest="d", engine_version="1", layers=(LAYER,), discriminator="a"
)


def ask(**given: Any) -> Spec:
    return Spec.model_validate({"model": "m", "layer": "fc", "unit": 3, "sampler": "langevin", **given})


def test_chains_and_steps_are_filled_in_and_completing_twice_changes_nothing() -> None:
    found = ask(images=6, langevin={"chains": 3, "burn_in": 20, "thinning": 5}).resolve(MODEL)
    assert (found.lanes, found.steps, found.parameterization, found.robustness) == (3, 30, "pixels", "none")
    assert (found.slope, found.start_noise) == (0.0, 0.5)
    again = Spec.model_validate(found.model_dump(mode="json"))
    assert again.resolve(MODEL) == found
    assert again.identity(MODEL) == found.identity(MODEL)


def test_each_image_is_a_chain_by_default() -> None:
    found = ask(images=4).resolve(MODEL)
    assert found.langevin is not None
    assert (found.langevin.chains, found.steps) == (4, 250)
    assert found.cost(MODEL) == pytest.approx(250 * 32 * 32 * 4 / 1e6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sampler": "ascent", "langevin": {}}, "langevin applies to sampler 'langevin', not 'ascent'"),
        ({"update": "adam"}, "update 'adam' applies to sampler 'ascent', not 'langevin'"),
        ({"preset": "max"}, "preset 'max' applies to sampler 'ascent'"),
        ({"diversity": 0.5, "images": 2}, "diversity 0.5 applies to sampler 'ascent'"),
        ({"compare": True, "slope": 0.1}, "compare True applies to sampler 'ascent'"),
        ({"images": 5, "langevin": {"chains": 2}}, "valid: images 2, 4, …, up to 16"),
        ({"steps": 10}, "burn-in and thinning make 250; leave steps out"),
        ({"langevin": {"burn_in": 4096}}, "4146 steps; valid: up to 4096"),
        ({"langevin": {"variant": "authors", "beta": 2}}, "beta 2.0 applies to variant 'sgld'"),
        ({"langevin": {"variant": "authors", "discriminator_weight": 2}}, "is a share; valid: 0 to 1"),
        ({"langevin": {"bounds": "none"}}, "valid: a pull above 0, or bounds 'reflect'"),
        ({"langevin": {"temperature": 0, "temperature_start": 2}}, "never reaches temperature 0"),
        ({"langevin": {"burn_in": 0, "step_size_start": 0.1}}, "step_size_start 0.1 needs a burn-in"),
    ],
)
def test_what_means_nothing_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=r".*") as caught:
        ask(**given)
    assert message in str(caught.value)


def test_a_discriminator_must_be_there_and_of_the_size() -> None:
    led = {"discriminator_weight": 1.0}
    with pytest.raises(InvalidRequest, match="model 'm' has no discriminator; valid"):
        ask(langevin=led).resolve(MODEL.model_copy(update={"discriminator": None}))
    with pytest.raises(SizeUnsupported, match="16x16 px: the discriminator of model 'm' takes 32x32 px"):
        ask(langevin=led, size_px=16).resolve(MODEL)
    ask(size_px=16).resolve(MODEL.model_copy(update={"discriminator": None}))


def test_the_discriminator_is_part_of_the_id_where_it_is_used() -> None:
    other = MODEL.model_copy(update={"discriminator": "b"})
    plain, led = ask(), ask(langevin={"discriminator_weight": 1.0})
    assert plain.identity(MODEL) == plain.identity(other)
    assert led.identity(MODEL) != led.identity(other)
    ascent = ask(sampler="ascent")
    assert "sampler" not in ascent.resolve(MODEL).canonical()
    assert ascent.identity(MODEL) == ascent.identity(other)


def test_the_id_depends_on_the_discriminator_where_it_leads() -> None:
    one, other = (MODEL.model_copy(update={"discriminator": digest * 64}) for digest in "ab")
    led = ask(langevin={"discriminator_weight": 10.0})
    alone = ask(langevin={})
    assert led.identity(one) != led.identity(other)
    assert alone.identity(one) == alone.identity(other)
    assert alone.identity(one) != ask(sampler="ascent", langevin=None).identity(one)
