"""What live workers published, as documents."""

from __future__ import annotations

import redis as redis_client

from proxygrad.spec import ModelInfo
from tests.service.conftest import Http
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel


def test_ready_and_broken_models_are_listed(served: Http) -> None:
    broken, digits = served.get("/v1/models").json()["models"]
    assert (broken["name"], broken["ready"]) == ("broken", False)
    assert "truncated" in broken["problem"]["detail"]
    assert (digits["name"], digits["ready"], digits["problem"]) == ("digits", True, None)
    assert (digits["input_shape"], digits["layer_count"]) == ([1, 32, 32], 3)
    assert digits["discriminator"] == "c" * 64
    assert digits["notes"] == ["weights file digits.pt: the prefix 'module.' of its keys is left out"]
    assert digits["classes"] == list("0123456789")
    assert served.get(digits["links"]["self"]).json() == digits


def test_layers_say_what_can_be_asked_of_them(served: Http) -> None:
    answer = served.get("/v1/models/digits/layers").json()
    assert (answer["model"], [layer["name"] for layer in answer["layers"]]) == (
        "digits",
        ["layer2", "layer3", "fc"],
    )
    layer = served.get("/v1/models/digits/layers/layer3").json()
    assert layer == answer["layers"][1]
    assert (layer["units"], layer["shape"]) == (64, [64, 8, 8])
    assert layer["objectives"] == ["channel", "neuron", "top_quarter"]


def test_unknown_names_are_answered_with_near_ones(served: Http) -> None:
    for path, code, name, near in [
        ("/v1/models/digit", "unknown_model", "model", "digits"),
        ("/v1/models/digit/layers", "unknown_model", "model", "digits"),
        ("/v1/models/digits/layers/layer33", "unknown_layer", "layer", "layer3"),
    ]:
        response = served.get(path)
        assert (response.status_code, response.json()["code"]) == (404, code)
        field_error = response.json()["errors"][0]
        assert (field_error["location"], field_error["choices"][0]) == (["path", name], near)


def test_layers_of_a_broken_model_are_unavailable_and_its_own_page_says_why(served: Http) -> None:
    assert served.get("/v1/models/broken/layers").json()["code"] == "model_unavailable"
    assert served.get("/v1/models/broken").json()["ready"] is False


def test_without_a_worker_nothing_is_served_for_now(http: Http) -> None:
    response = http.get("/v1/models")
    assert (response.status_code, response.json()["code"]) == (503, "no_worker")


def test_a_name_with_a_slash_is_linked_so_that_it_can_be_followed(
    http: Http, redis: redis_client.Redis, info: ModelInfo
) -> None:
    odd = info.model_copy(update={"name": "ä b?"})
    catalog.publish(redis, "worker-1", [ServedModel(name=odd.name, info=odd)], ttl_s=60)
    link = http.get("/v1/models").json()["models"][0]["links"]["layers"]
    assert http.get(link).json()["model"] == odd.name
