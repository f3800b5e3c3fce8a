"""Behind a proxy that serves it below a prefix, every link of the service leads back to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import pytest
import redis as redis_client
from fastapi import FastAPI

from proxygrad.spec import ModelInfo
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.conftest import Http, Player
from tests.support.batch_player import BatchPlayer
from tests.support.http_server import serving
from tests.support.raw_http import get, talk
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel

QUESTION = {"model": "digits", "layer": "layer3", "unit": 7}
PUBLIC = "http://localhost:81/lab/viz"
PREFIX = "/lab/viz"


@pytest.fixture
def proxied(redis: redis_client.Redis, settings: ServiceSettings, info: ModelInfo) -> Iterator[FastAPI]:
    """A gateway that knows its public URL, while a worker serves `digits`."""
    app = create_app(settings.model_copy(update={"public_url": PUBLIC}))
    catalog.publish(redis, "worker-1", [ServedModel(name="digits", info=info)], ttl_s=60)
    yield app
    app.state.backend.redis.close()


@pytest.fixture
def public(proxied: FastAPI) -> Http:
    return Http(proxied)


def links_of(document: Any) -> Iterator[str]:
    """Every link of a document."""
    if isinstance(document, dict):
        for name, value in document.items():
            if isinstance(value, str) and (value.startswith("/") or name in ("href", "self")):
                yield value
            else:
                yield from links_of(value)
    elif isinstance(document, list):
        for item in document:
            yield from links_of(item)


@pytest.mark.parametrize("stripped", [True, False], ids=["prefix taken off", "prefix left in"])
def test_every_link_has_the_prefix_and_can_be_followed(
    public: Http, player: Player, worker: BatchPlayer, stripped: bool
) -> None:
    def call(method: str, path: str, **request: Any) -> Any:
        path = path.removeprefix(PREFIX) if stripped else PREFIX + path.removeprefix(PREFIX)
        return public(method, path, **request)

    asked = call("POST", "/v1/visualizations", json=QUESTION)
    locations = [asked.headers["location"]]
    player.succeed(asked.json()["id"])
    batch = call("POST", "/v1/batches", json={"model": "digits", "layer": "layer3"})
    locations.append(batch.headers["location"])
    worker.expand()
    worker.end(batch.json()["id"], "succeeded", 0)
    found = {*locations}
    for path in [
        *locations,
        "/v1/visualizations?limit=1",
        "/v1/batches",
        "/v1/models",
        f"{locations[1]}/visualizations?limit=1",
        "/v1/webhooks/deliveries",
    ]:
        answer = call("GET", path)
        assert answer.status_code == 200, answer.text
        found |= set(links_of(answer.json()))
    sheet = call("GET", f"{locations[1]}/atlas?width=256&columns=1")
    found |= set(re.findall("<(.*?)>", sheet.headers.get("link", "")))
    assert [link for link in found if not link.startswith(f"{PREFIX}/v1/")] == []
    assert len({re.sub("[0-9a-f]{32}", "ID", link.partition("?")[0]) for link in found}) >= 11
    for link in found - {each for each in found if each.endswith(("/cancel", "/retry", "/events"))}:
        assert call("GET", link).status_code in (200, 404), link  # 404: a picture of no job that was played


def test_an_answer_that_is_kept_has_the_links_of_whoever_asks(served: Http, player: Player) -> None:
    path = served.ask(json=QUESTION).headers["location"]
    player.succeed(path.rpartition("/")[2])
    for prefix in ("", "/a", "/b/c", ""):
        answer = served.get(path, headers={"X-Forwarded-Prefix": f"{prefix}/"} if prefix else {})
        assert answer.json()["links"]["self"] == f"{prefix}{path}"


@pytest.mark.parametrize(
    "prefix", ["//evil.example", "/a//b", "https://evil.example", "/a?b", "/../a", "/a b", "/" + 300 * "a"]
)
def test_a_prefix_that_is_no_plain_path_is_ignored(served: Http, prefix: str) -> None:
    asked = served.ask(json=QUESTION, headers={"X-Forwarded-Prefix": prefix})
    assert asked.headers["location"].startswith("/v1/visualizations/")


def test_the_public_url_counts_before_the_header(public: Http) -> None:
    asked = public.ask(json=QUESTION, headers={"X-Forwarded-Prefix": "/other"})
    assert asked.headers["location"].startswith(f"{PREFIX}/v1/")


def test_the_openapi_document_and_the_reference_name_the_server(public: Http, served: Http) -> None:
    def servers(http: Http, **headers: str) -> list[str]:
        return [each["url"] for each in http.get("/openapi.json", headers=headers).json()["servers"]]

    assert servers(public)[0] == PUBLIC
    assert servers(served, **{"X-Forwarded-Prefix": "/viz"})[0] == "/viz"
    assert servers(served)[0] == "/"
    for page in ("/docs", f"{PREFIX}/docs"):
        (href,) = re.findall('href="([^"]*openapi.json)"', public.get(page).text)
        assert public.get(urljoin(page, href)).json()["openapi"]


def test_an_unknown_path_points_at_the_reference(public: Http) -> None:
    assert f"{PREFIX}/docs lists all paths" in public.get("/nowhere").json()["detail"]


def test_requests_below_the_prefix_are_counted_by_their_route(public: Http) -> None:
    public.get(f"{PREFIX}/v1/models")
    text = public.get("/metrics").text
    assert re.search(r'_requests?_.*route="/v1/models"', text), text


@pytest.mark.parametrize("path", ["", "/", "/v1/models", "/livez?verbose=1"])
def test_a_target_may_name_the_public_url_in_full(proxied: FastAPI, path: str) -> None:
    with serving(proxied) as url:
        for target in (f"{PREFIX}{path}", f"{PUBLIC}{path}"):
            answer = talk(url, get(target.encode()))
            assert answer.startswith(b"HTTP/1.1 200 OK"), answer
        assert talk(url, get(f"http://evil.example{PREFIX}/v1/models".encode())).startswith(b"HTTP/1.1 421")
