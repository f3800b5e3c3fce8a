"""What is said about layers: which rectifiers made them, which are like the one that was meant."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
import redis as redis_client

from proxygrad.spec import LayerInfo, ModelInfo
from tests.service.conftest import Http
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel

LAYERS = (
    LayerInfo(name="stem.conv", kind="feature_map", type="Conv2d", shape=(8, 4, 4), units=8),
    LayerInfo(
        name="stem.bn",
        kind="feature_map",
        type="BatchNorm2d",
        shape=(8, 4, 4),
        units=8,
        activation="relu",
        stage="pre_activation",
    ),
    LayerInfo(
        name="stem",
        kind="feature_map",
        type="Stem",
        shape=(8, 4, 4),
        units=8,
        activation="relu",
        stage="post_activation",
    ),
    LayerInfo(name="fc", kind="logits", type="Linear", shape=(10,), units=10),
)


@pytest.fixture
def tiny(http: Http, redis: redis_client.Redis, info: ModelInfo) -> Http:
    """A gateway beside a worker that serves the model `tiny`, with `LAYERS`."""
    served = ServedModel(name="tiny", info=info.model_copy(update={"name": "tiny", "layers": LAYERS}))
    catalog.publish(redis, "worker-1", [served], ttl_s=60)
    return http


def listed(http: Http, query: str) -> list[str]:
    answer = http.get(f"/v1/models/tiny/layers{query}")
    assert answer.status_code == 200, answer.text
    return [layer["name"] for layer in answer.json()["layers"]]


def test_a_layer_says_which_rectifier_made_or_takes_it(tiny: Http) -> None:
    stages = {
        layer["name"]: (layer["stage"], layer["activation"])
        for layer in tiny.get("/v1/models/tiny/layers").json()["layers"]
    }
    assert stages == {
        "stem.conv": (None, None),
        "stem.bn": ("pre_activation", "relu"),
        "stem": ("post_activation", "relu"),
        "fc": (None, None),
    }
    assert tiny.get("/v1/models/tiny/layers/stem").json()["stage"] == "post_activation"


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("?kind=logits", ["fc"]),
        ("?kind=logits&kind=feature_map", ["stem.conv", "stem.bn", "stem", "fc"]),
        ("?stage=post_activation", ["stem"]),
        ("?stage=post_activation&stage=pre_activation&kind=feature_map", ["stem.bn", "stem"]),
        ("?kind=tokens", []),
    ],
)
def test_layers_are_filtered_by_kind_and_stage(tiny: Http, query: str, names: list[str]) -> None:
    assert listed(tiny, query) == names


@pytest.mark.parametrize(
    ("query", "name", "choices"),
    [
        ("?kind=map", "kind", ["feature_map", "tokens", "vector", "logits"]),
        ("?stage=post", "stage", ["pre_activation", "post_activation"]),
    ],
)
def test_a_filter_that_is_none_is_answered_with_the_valid_ones(
    tiny: Http, query: str, name: str, choices: list[str]
) -> None:
    answer = tiny.get(f"/v1/models/tiny/layers{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    field_error = answer.json()["errors"][0]
    assert field_error["location"][:2] == ["query", name]
    assert all(repr(choice) in field_error["detail"] for choice in choices)


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("/v1/models/tinny", "tiny"),
        ("/v1/models/TINY/layers", "tiny"),
        ("/v1/models/tiny/layers/Stem.BN", "stem.bn"),
        ("/v1/models/tiny/layers/stem.conv1", "stem.conv"),
        ("/v1/models/tiny/layers/fcs", "fc"),
    ],
)
def test_a_near_miss_in_a_path_is_answered_with_what_was_meant(tiny: Http, path: str, nearest: str) -> None:
    answer = tiny.get(path)
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["choices"][0] == nearest
    assert nearest in answer.json()["detail"]


@pytest.mark.parametrize(
    ("wrong", "field", "nearest"),
    [({"model": "tyni"}, "model", "tiny"), ({"layer": "stem_bn"}, "layer", "stem.bn")],
)
def test_a_near_miss_in_a_question_is_answered_with_what_was_meant(
    tiny: Http, wrong: dict[str, Any], field: str, nearest: str
) -> None:
    answer = tiny.ask(json={"model": "tiny", "layer": "stem", "unit": 0, **wrong})
    assert 400 <= answer.status_code < 500
    field_error = answer.json()["errors"][0]
    assert (field_error["location"][-1], field_error["choices"][0]) == (field, nearest)


def test_what_an_older_worker_published_is_read_too(http: Http, redis: redis_client.Redis) -> None:
    publish(redis, lambda layer: {key: layer[key] for key in ("name", "kind", "type", "shape", "units")})
    layer = http.get("/v1/models/tiny/layers/stem").json()
    assert (layer["stage"], layer["activation"]) == (None, None)


def test_what_a_newer_worker_knows_beyond_is_left_out(http: Http, redis: redis_client.Redis) -> None:
    publish(redis, lambda layer: {**layer, "receptive_field_px": 7}, {"color_space": "sRGB"})
    layer = http.get("/v1/models/tiny/layers/stem").json()
    assert layer["units"] == 8
    assert "receptive_field_px" not in layer


def publish(redis: redis_client.Redis, layer: Any, more: dict[str, Any] | None = None) -> None:
    """Publish `tiny` as a worker of another version would, with each layer's document changed by `layer`."""
    info = ModelInfo(name="tiny", input_shape=(1, 32, 32), digest="d" * 64, engine_version="1", layers=LAYERS)
    served = ServedModel(name="tiny", info=info)
    catalog.publish(redis, "worker-1", [served], ttl_s=60)
    (key,) = cast("list[bytes]", redis.keys("proxygrad:worker:*:models"))
    document = served.model_dump(mode="json")
    document["info"] |= {"layers": [layer(each) for each in document["info"]["layers"]], **(more or {})}
    redis.set(key, json.dumps([document | (more or {})]), keepttl=True)
