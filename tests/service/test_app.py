"""The application as a whole: its OpenAPI document, and that it needs no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from proxygrad.protocol.problems import MEDIA_TYPE, ProblemCode
from service.app import create_app, mount_flat
from service.problems import KINDS
from service.settings import ServiceSettings
from tests.service.conftest import Http
from workers.errors import SettingsError, StorageError

REPOSITORY = Path(__file__).resolve().parents[2]

#: Codes that any route may answer with, or none of its own: they are not listed route by route.
EVERYWHERE = {"bad_request", "not_found", "method_not_allowed", "internal_error"}


@pytest.fixture
def document(http: Http) -> dict[str, Any]:
    found: dict[str, Any] = http.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_every_route_is_documented(document: dict[str, Any]) -> None:
    assert set(operations(document)) == {
        "POST /v1/visualizations",
        "GET /v1/visualizations",
        "GET /v1/visualizations/{visualization_id}",
        "DELETE /v1/visualizations/{visualization_id}",
        "GET /v1/visualizations/{visualization_id}/events",
        "POST /v1/visualizations/{visualization_id}/cancel",
        "POST /v1/visualizations/{visualization_id}/retry",
        "GET /v1/visualizations/{visualization_id}/images/{number}",
        "GET /v1/visualizations/{visualization_id}/grid",
        "GET /v1/visualizations/{visualization_id}/animation",
        "POST /v1/attributions",
        "GET /v1/attributions",
        "GET /v1/attributions/{attribution_id}",
        "DELETE /v1/attributions/{attribution_id}",
        "GET /v1/attributions/{attribution_id}/events",
        "POST /v1/attributions/{attribution_id}/cancel",
        "POST /v1/attributions/{attribution_id}/retry",
        "GET /v1/attributions/{attribution_id}/images/{name}",
        "GET /v1/attributions/{attribution_id}/contributions",
        "POST /v1/batches",
        "GET /v1/batches",
        "GET /v1/batches/{batch_id}",
        "DELETE /v1/batches/{batch_id}",
        "GET /v1/batches/{batch_id}/visualizations",
        "GET /v1/batches/{batch_id}/atlas",
        "POST /v1/batches/{batch_id}/cancel",
        "POST /v1/callers/{caller}/cancel",
        "GET /v1/models",
        "GET /v1/models/{model}",
        "GET /v1/models/{model}/layers",
        "GET /v1/models/{model}/layers/{layer}",
        "GET /v1/webhooks/deliveries",
        "GET /v1/webhooks/deliveries/{delivery_id}",
        "POST /v1/webhooks/deliveries/{delivery_id}/retry",
        "GET /livez",
        "GET /readyz",
        "GET /startupz",
        "GET /metrics",
    }


def test_every_error_is_a_problem_of_the_one_schema(document: dict[str, Any]) -> None:
    said = ""
    for name, operation in operations(document).items():
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                schema = response["content"][MEDIA_TYPE]["schema"]
                assert schema == {"$ref": "#/components/schemas/ProblemDetails"}, (name, status)
                said += response["description"]
    assert {code for code in get_args(ProblemCode) if f"`{code}`" not in said} == EVERYWHERE


def test_every_reference_leads_to_a_schema(document: dict[str, Any]) -> None:
    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            here = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return here.union(*(references(value) for value in node.values()))
        return set[str]().union(*(references(item) for item in node)) if isinstance(node, list) else set()

    schemas = document["components"]["schemas"]
    assert {reference.removeprefix("#/components/schemas/") for reference in references(document)} <= set(
        schemas
    )
    assert {
        "VisualizationRequest",
        "Spec",
        "Result",
        "Visualization",
        "ProblemDetails",
        "FieldError",
        "Layer",
    } <= set(schemas)
    assert not [name for name in schemas if "__" in name], "two models share a name"


def test_the_question_is_documented_with_examples_and_its_defaults(document: dict[str, Any]) -> None:
    body = operations(document)["POST /v1/visualizations"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/VisualizationRequest"}
    assert body["examples"]["smallest"]["value"] == {"model": "digits", "layer": "layer3", "unit": 7}
    spec = document["components"]["schemas"]["VisualizationRequest"]
    assert spec["required"] == ["model", "layer", "unit"]
    assert all("description" in field for field in spec["properties"].values())


def test_every_field_of_an_answer_is_described(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    plain = [
        f"{schema}.{name}"
        for schema in ("Visualization", "Progress", "Model", "ProblemDetails", "FieldError")
        for name, field in schemas[schema]["properties"].items()
        if "description" not in field and "$ref" not in field and name not in ("name", "links")
    ]
    assert plain == []


def test_the_documentation_page_is_there(http: Http) -> None:
    assert http.get("/docs").status_code == 200


@pytest.mark.parametrize("path", ["/v1", "/v1/visualization", "/v1/models/", "/../etc", "/v1/%00"])
def test_an_unknown_path_is_a_problem(served: Http, path: str) -> None:
    response = served.get(path)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert response.headers["content-type"] == MEDIA_TYPE


@pytest.mark.parametrize("path", ["/v1/models", "/v1/visualizations", "/livez", f"/v1/batches/{'0' * 32}"])
def test_a_slash_too_many_is_said(served: Http, path: str) -> None:
    response = served.get(f"{path}/")
    assert response.status_code == 404
    detail = f"there is nothing at '{path}/'; without the slash at its end there is: '{path}'"
    assert response.json()["detail"] == detail


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/visualizations/abc", "unknown_visualization"),
        ("/v1/visualizations/abc/images/0", "unknown_visualization"),
        (f"/v1/visualizations/{'A' * 32}", "unknown_visualization"),
        ("/v1/batches/abc", "unknown_batch"),
        ("/v1/webhooks/deliveries/abc", "unknown_delivery"),
    ],
)
def test_what_can_be_no_id_is_not_there(served: Http, path: str, code: str) -> None:
    response = served.get(path)
    assert (response.status_code, response.json()["code"]) == (404, code)
    assert response.json()["detail"].endswith("; an id has 32 hex digits")


@pytest.mark.parametrize(("method", "path"), [("PUT", "/v1/visualizations"), ("POST", "/livez")])
def test_a_method_that_does_not_apply_is_a_problem_naming_those_that_do(
    http: Http, method: str, path: str
) -> None:
    response = http(method, path)
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] in response.json()["detail"]


def test_a_failure_of_the_server_is_a_problem_that_tells_nothing_of_its_inside(app: FastAPI) -> None:
    @app.get("/fails")
    def fails() -> None:
        raise RuntimeError("secret")

    response = Http(app).get("/fails")
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "secret" not in response.text
    assert "Traceback" not in response.text


def test_every_status_is_one_that_its_kind_documents() -> None:
    known = {400, 401, 403, 404, 405, 406, 408, 409, 413, 415, 416, 421, 422, 429, 431, 500, 503}
    assert {kind.status for kind in KINDS.values()} == known


def test_without_redis_named_the_application_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="REDIS_URL"):
        create_app(ServiceSettings.from_env({"PROXYGRAD_HOME": str(tmp_path)}))


def test_a_store_that_cannot_be_used_is_found_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environ = {"REDIS_URL": "redis://127.0.0.1:1", "PROXYGRAD_STORE": (tmp_path / "file/store").as_uri()}
    with pytest.raises(StorageError, match="file/store"):
        create_app(ServiceSettings.from_env(environ | {"PROXYGRAD_HOME": str(tmp_path)}))


_WITHOUT_TORCH = """
import importlib, pkgutil, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "numpy", "safetensors"}:
            raise ModuleNotFoundError(f"{name} was imported", name=name)

sys.meta_path.insert(0, Refuse())
import service, workers
names = [m.name for m in pkgutil.walk_packages(service.__path__, "service.")]
free = {"batches", "broker", "errors", "fleet", "jobs", "cache", "queue", "settings", "storage"}
names += [m.name for m in pkgutil.walk_packages(workers.__path__, "workers.") if m.name.split(".")[1] in free]
for name in names:
    importlib.import_module(name)
assert {"service.app", "service.cli.demo", "workers.jobs.repository"} <= set(names), names
assert not {"torch", "numpy"} & set(sys.modules)
print("imported", len(names))
"""


def test_the_whole_service_imports_where_torch_does_not() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("imported")


def test_importing_the_application_does_no_work(tmp_path: Path) -> None:
    """Nothing is written, no thread started, no socket opened, no torch loaded."""
    code = (
        "import sys, threading, service.app; "
        "assert 'torch' not in sys.modules; assert threading.active_count() == 1"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_routes_are_mounted_flat() -> None:
    """Each route of a router stands in the application's own table, and answers there."""
    router = APIRouter(prefix="/things", tags=["things"])

    @router.get("/{number}")
    async def read(number: int) -> int:
        return number

    app = FastAPI()
    before = len(app.router.routes)
    mount_flat(app, [router])
    assert [route.path for route in app.router.routes[before:] if isinstance(route, APIRoute)] == [
        "/things/{number}"
    ]
    assert Http(app).get("/things/7").json() == 7
    assert app.openapi()["paths"]["/things/{number}"]["get"]["tags"] == ["things"]
