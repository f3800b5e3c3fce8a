"""A small client: ask, follow, fetch.

::

    with Client("http://127.0.0.1:8000") as client:
        asked = client.submit(model="digits", layer="layer3", unit=7)
        for seen in client.follow(asked):
            print(seen.progress.step, "of", seen.progress.steps)
        picture = client.image(seen.id)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, PrivateAttr, ValidationError

from proxygrad.errors import ProxyGradError
from service import answers
from service.answers import LayerAnswer, LayersAnswer, ModelAnswer, ModelsAnswer
from service.problems import ProblemDetails
from service.settings import is_loopback

Answer = TypeVar("Answer", bound=BaseModel)

#: How long one request may take beyond the wait that it asks for: the gateway's own limits are a few seconds.
TIMEOUT_S = 15.0
#: How long one long poll waits while a job is followed; short, because each answer also carries progress.
FOLLOW_S = 0.2


class ServiceError(ProxyGradError):
    """The service refused, failed, or is not there. ``code`` is the problem's code."""

    code = "service_error"


class ServiceUnreachable(ServiceError):
    """Nothing answers at the address."""

    code = "service_unreachable"


class Refused(ServiceError):
    """The service answered with a problem; ``problem`` holds all of it."""

    def __init__(self, problem: ProblemDetails) -> None:
        super().__init__(f"{problem.detail} [{problem.code}]")
        self.problem = problem
        self.code = problem.code


class Visualization(answers.Visualization):
    """What the service says about one question, and whether it had the answer already."""

    _answered_at_once: bool = PrivateAttr(default=False)

    @property
    def answered_at_once(self) -> bool:
        """True when submitting it found the answer in the store: nothing was computed."""
        return self._answered_at_once


class Client:
    """Talks to the service at ``base_url``. A context manager; not shared between threads.

    Every method raises `ServiceUnreachable` when nothing answers and `Refused` when the service says no.
    """

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url.rstrip("/")
        try:
            host = httpx.URL(self.base_url).host
        except httpx.InvalidURL as error:
            raise ServiceUnreachable(f"{base_url!r} is not the address of a server: {error}") from error
        # No proxy that the environment names leads back to this machine.
        trusted = not is_loopback(host)
        self._http = httpx.Client(base_url=self.base_url, timeout=TIMEOUT_S, trust_env=trusted)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(self, **spec: Any) -> Visualization:
        """Ask; the fields are those of `proxygrad.spec.Spec`, of which three have no default."""
        response = self._call("POST", "/v1/visualizations", json=spec)
        asked = _read(response, Visualization)
        asked._answered_at_once = response.status_code == 200
        return asked

    def get(self, visualization_id: str, wait_s: float = 0.0) -> Visualization:
        """Where a question stands; with ``wait_s`` (at most 60) seconds to wait for its end."""
        path = f"/v1/visualizations/{visualization_id}"
        return _read(self._call("GET", path, wait_s, params={"wait": wait_s}), Visualization)

    def follow(self, asked: Visualization) -> Iterator[Visualization]:
        """What is seen of a question until it ends, the last in a state that does not change any more."""
        seen = asked
        yield seen
        while not seen.ended:
            seen = self.get(asked.id, FOLLOW_S)
            yield seen

    def image(self, visualization_id: str, number: int = 0) -> bytes:
        """The PNG of a succeeded visualization."""
        return self._call("GET", f"/v1/visualizations/{visualization_id}/images/{number}").content

    def models(self) -> list[ModelAnswer]:
        """Every model that the service knows, ready or not."""
        return _read(self._call("GET", "/v1/models"), ModelsAnswer).models

    def layers(self, model: str) -> list[LayerAnswer]:
        """The layers of a model."""
        return _read(self._call("GET", f"/v1/models/{model}/layers"), LayersAnswer).layers

    def _call(
        self,
        method: str,
        path: str,
        wait_s: float = 0.0,
        json: Mapping[str, Any] | None = None,
        params: Mapping[str, float] | None = None,
    ) -> httpx.Response:
        try:
            response = self._http.request(method, path, json=json, params=params, timeout=TIMEOUT_S + wait_s)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ServiceUnreachable(f"{self.base_url!r} is not the address of a server: {error}") from error
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ServiceUnreachable(f"no ProxyGrad service answers at {self.base_url} ({reason})") from error
        if response.is_error:
            raise _refused(response)
        return response


def _read(response: httpx.Response, kind: type[Answer]) -> Answer:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        raise ServiceError(
            f"{response.url} does not answer as a ProxyGrad service of this version does"
        ) from error


def _refused(response: httpx.Response) -> ServiceError:
    try:
        return Refused(ProblemDetails.model_validate_json(response.content))
    except ValidationError:
        return ServiceError(f"{response.url} answered {response.status_code} {response.reason_phrase}")
