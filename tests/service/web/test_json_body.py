"""Bodies that are not a question: always a problem that says what is wrong, never a failure."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from pydantic import BaseModel

from proxygrad.protocol.requests import BatchRequest, VisualizationRequest
from proxygrad.spec.settings import MAX_STEPS
from service.api import examples
from service.problems import ProblemError
from service.web.json_body import parsed
from service.web.validation import MAX_REPORTED
from tests.service.conftest import Http

JSON = {"Content-Type": "application/json"}


def parse(body: bytes) -> VisualizationRequest:
    return parsed(body, VisualizationRequest)


def smallest(**changes: str) -> bytes:
    """A question as text, with some values replaced by raw JSON."""
    fields = {"model": '"digits"', "layer": '"layer3"', "unit": "7"} | changes
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}").encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"model=digits",
        b"\xff\xfe\x00",
        smallest(unit="9" * 5000),
        smallest(model='"\\ud800"'),
        smallest(unit="0x7"),
        smallest()[:-1],
        smallest() + b"{}",
    ],
)
def test_what_is_not_json_is_invalid_json(body: bytes) -> None:
    with pytest.raises(ProblemError) as refused:
        parse(body)
    assert (refused.value.code, refused.value.status) == ("invalid_json", 400)


@pytest.mark.parametrize(
    ("body", "location"),
    [
        (b"null", ["body"]),
        (b"[1]", ["body"]),
        (b'"text"', ["body"]),
        (b"{}", ["body", "model"]),
        (smallest(unit="-1"), ["body", "unit"]),
        (smallest(unit='"7"'), ["body", "unit"]),
        (smallest(unit="true"), ["body", "unit"]),
        (smallest(unit="7.5"), ["body", "unit"]),
        (smallest(unit="NaN"), ["body", "unit"]),
        (smallest(slope="NaN"), ["body", "slope"]),
        (smallest(slope="Infinity"), ["body", "slope"]),
        (smallest(slope="1e999"), ["body", "slope"]),
        (smallest(seed="9223372036854775808"), ["body", "seed"]),
        (smallest(steps="1" + "0" * 400), ["body", "steps"]),
        (smallest(position="[1, 2, 3]"), ["body", "position"]),
        (smallest(position="[" * 30 + "]" * 30), ["body", "position", 0]),
        (smallest(objective='"beauty"'), ["body", "objective"]),
        (smallest(model='"' + "a" * 5000 + '"'), ["body", "model"]),
        (smallest(model='"a\\u0000b"', extra="{}"), ["body", "extra"]),
    ],
)
def test_json_that_is_no_question_is_invalid_and_the_place_is_named(
    body: bytes, location: list[str | int]
) -> None:
    with pytest.raises(ProblemError) as refused:
        parse(body)
    assert (refused.value.code, refused.value.status) == ("invalid_request", 422)
    assert refused.value.field_errors[0].location == location
    # Whatever was sent, the document that repeats it is JSON that any reader takes.
    text = refused.value.details().model_dump_json()
    json.loads(text, parse_constant=pytest.fail)
    assert len(text) < 4000


def test_the_range_of_every_bounded_field_is_given() -> None:
    with pytest.raises(ProblemError) as refused:
        parse(smallest(steps="0", slope="2", seed="-1", step_size="0", size_px="3"))
    given = {
        field_error.location[1]: (field_error.value, field_error.minimum, field_error.maximum)
        for field_error in refused.value.field_errors
    }
    assert given == {
        "steps": (0, 1, MAX_STEPS),
        "slope": (2.0, 0, 1),
        "seed": (-1, 0, 2**63 - 1),
        "step_size": (0.0, None, 10),
        "size_px": (3, 8, 1024),
    }
    assert "steps: should be 1 to 4096, not 0" in refused.value.detail
    assert refused.value.detail.endswith("and 2 more")
    said = {each.location[1]: each.detail for each in refused.value.field_errors}
    assert said["step_size"] == "should be above 0, up to 10, not 0"


def test_the_operator_s_limit_is_named_where_it_is_lower() -> None:
    with pytest.raises(ProblemError, match="size_px: should be 8 to 512, not 2000") as refused:
        parsed(smallest(size_px="2000"), VisualizationRequest, {"size_px": 512})
    assert refused.value.field_errors[0].maximum == 512


def test_a_server_names_its_own_limits(served: Http) -> None:
    refused = served.ask(content=smallest(size_px="2000", steps="9999"), headers=JSON).json()
    assert {each["location"][1]: each["maximum"] for each in refused["errors"]} == {
        "size_px": 512,
        "steps": 2048,
    }


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"unit": "null"}, "should be a valid integer, not null"),
        ({"spread_max_pool": "NaN"}, "should be a finite number (valid: 0 to 1), not NaN"),
        ({"slope": "NaN"}, "should be 0 to 1, or 'auto', not NaN"),
        ({"compare": '{"a": null}'}, 'should be a valid boolean, not {"a": null}'),
        ({"position": "[1, 2, 3]"}, "should have at most 2 items, not 3"),
        ({"position": "[null]"}, "should be a valid integer, not null"),
        ({"sead": "1"}, "unknown field; near names: seed"),
    ],
)
def test_a_sentence_is_in_the_words_of_json_and_is_the_only_one(changes: dict[str, str], detail: str) -> None:
    with pytest.raises(ProblemError) as refused:
        parse(smallest(**changes))
    assert [each.detail for each in refused.value.field_errors] == [detail]


def test_an_unknown_field_like_no_other_gets_the_valid_ones() -> None:
    with pytest.raises(ProblemError) as refused:
        parsed(b'{"model": "m", "layer": "l", "units": {"qqq": 1}}', BatchRequest)
    assert refused.value.field_errors[0].detail == "unknown field; valid: start, stop, step"


def test_choices_and_near_field_names_are_given() -> None:
    with pytest.raises(ProblemError) as refused:
        parse(smallest(objective='"chanel"', sead="1"))
    choices = {field_error.location[1]: field_error.choices for field_error in refused.value.field_errors}
    assert choices == {"objective": ["channel", "neuron", "top_quarter", "logit", "margin"], "sead": ["seed"]}


@pytest.mark.parametrize("example", examples.VISUALIZATIONS.values(), ids=examples.VISUALIZATIONS)
def test_the_documented_examples_are_valid(example: dict[str, Any]) -> None:
    assert VisualizationRequest.model_validate(example["value"]).unit == 7


@pytest.mark.parametrize("example", examples.BATCHES.values(), ids=examples.BATCHES)
def test_the_documented_examples_of_batches_are_valid(example: dict[str, Any]) -> None:
    assert BatchRequest.model_validate(example["value"]).layer == "layer3"


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_another_content_type_is_refused_and_the_right_one_named(
    served: Http, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = served.ask(content=smallest(), headers=headers)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert "application/json" in response.json()["detail"]


def test_parameters_of_the_content_type_do_not_matter(served: Http) -> None:
    response = served.ask(content=smallest(), headers={"Content-Type": "application/json; charset=utf-8"})
    assert response.status_code == 202


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 12_000,
        b'{"a":' * 12_000,
        smallest(position="[" * 5000),
        smallest(position="[" * 100 + "]" * 100),
        b'"\\""' + b"[" * 33,
    ],
)
def test_what_is_nested_too_deeply_is_not_read(body: bytes) -> None:
    with pytest.raises(ProblemError, match="deeper than 32 levels") as refused:
        parse(body)
    assert (refused.value.code, refused.value.status) == ("json_too_deep", 400)


def test_brackets_in_texts_are_no_depth(served: Http) -> None:
    response = served.ask(content=smallest(layer='"' + "[" * 100 + '"'), headers=JSON)
    assert response.json()["code"] == "unknown_layer"


UNITS = '{"model": "digits", "layer": "layer3", "units": '


@pytest.mark.parametrize(
    ("body", "kind", "count"),
    [
        (smallest(**{f"x{number}": "1" for number in range(5000)}), VisualizationRequest, 5000),
        (smallest(position="[" + ", ".join(["-1"] * 20_000) + "]"), VisualizationRequest, 1),
        ((UNITS + "[" + ", ".join(["-1"] * 20_000) + "]}").encode(), BatchRequest, 1),
        (smallest(**{"x" * 30_000: "1", "layer" * 6000: "1"}), VisualizationRequest, 2),
    ],
    ids=["unknown fields", "a position", "units", "long names"],
)
def test_the_answer_stays_small_and_quick_however_much_is_wrong(
    body: bytes, kind: type[BaseModel], count: int
) -> None:
    """The first `MAX_REPORTED` errors are spelled out and all are counted; 5,000 took 9 s and 3.3 MB.

    Of a list the first invalid item is enough.
    """
    begun_s = time.process_time()
    with pytest.raises(ProblemError) as refused:
        parsed(body, kind)
    text = refused.value.details().model_dump_json()
    assert time.process_time() - begun_s < 1
    assert len(refused.value.field_errors) == min(count, MAX_REPORTED)
    assert len(text) < 20_000
    if count > 3:
        assert refused.value.detail.endswith(f"and {count - 3} more")
