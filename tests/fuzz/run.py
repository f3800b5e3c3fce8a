"""One run: a service with a real worker, generated requests without and with keys, and what is left."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from schemathesis import CheckContext, Config, HookContext, Response, hooks
from schemathesis.engine import Status, events, from_schema

from service.auth.keys import Keys
from service.stack.supervisor import Stack
from tests.fuzz.book import Book
from tests.fuzz.plan import Bend, Scale
from tests.fuzz.service import service
from tests.fuzz.wear import Wear
from workers.broker.connection import connect

#: Answered by any path or method, so not listed by each operation.
EVERYWHERE = frozenset({"bad_request", "not_found", "method_not_allowed"})
#: Everything that was asked must have ended, once canceled, within so many seconds.
END_S = 60.0
REQUEST_S = 30.0
#: What a valid request may be answered with beside success: what it names may not be there, cost too much, or
#: be too long, as names of models have no longest.
REFUSED = ["2xx", "3xx", "401", "403", "404", "406", "409", "416", "422", "429", "431", "503"]
#: What an invalid request is refused with. 413 and 431: it is too long to be looked at; Schemathesis, left to
#: itself, takes those for an acceptance.
INVALID = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "429", "431", "503"]

Say = Callable[[str], None]


def fuzz(seed: int, scale: Scale, say: Say) -> Book:
    """Run it all; the book has every fault."""
    with (
        tempfile.TemporaryDirectory(prefix="proxygrad-fuzz-") as home,
        service(Path(home)) as stack,
        ExitStack() as opened,
    ):
        began_s = time.monotonic()
        redis = opened.enter_context(connect(valkey_url(stack)))
        book, bend, wear = Book(), Bend(seed), Wear(seed, redis, Path(home) / "artifacts")
        send(stack.url, seed, scale, bend, wear, book, {})
        say(f"without keys: {book.cases} requests in {time.monotonic() - began_s:.0f} s")
        check_nothing_is_left(stack.url, book, {})
        keyed = Scale(scale.keyed, 0, 0, 0, coverage=False)
        for name, headers in keys(stack).items():
            before = book.cases
            send(stack.url, seed, keyed, bend, wear, book, headers)
            say(f"{name}: {book.cases - before} requests")
            if name == "a key that may do all":
                check_nothing_is_left(stack.url, book, headers)
        say(f"in all {book.cases} requests in {time.monotonic() - began_s:.0f} s, seed {seed}\n")
        say(book.table())
        say(f"\nmeanwhile: {', '.join(f'{count} {name}' for name, count in wear.happened.items())}")
    for fault in book.faults:
        say(f"\nFAULT {fault}")
    say(f"\n{len(book.faults)} faults")
    return book


def keys(stack: Stack) -> Mapping[str, dict[str, str]]:
    """Headers of callers that may do nothing, little and all: from the first key on, keys are in force."""
    with connect(valkey_url(stack)) as redis:
        made = Keys(redis)
        reader = made.create("reader", scopes=("read",))[1]
        operator = made.create("operator", scopes=("admin",))[1]
        hurried = made.create("hurried", scopes=("read", "submit"), rate_per_min=1)[1]
    time.sleep(3.5)  # the gateway looks at its keys every 3 s
    return {
        "no key": {},
        "a key that may read": {"Authorization": f"Bearer {reader}"},
        "a key of one request a minute": {"Authorization": f"Bearer {hurried}"},
        "a key that may do all": {"Authorization": f"Bearer {operator}"},
    }


def valkey_url(stack: Stack) -> str:
    """The URL of its Redis."""
    valkey = stack._valkey
    assert valkey is not None
    return valkey.url


def send(
    url: str, seed: int, scale: Scale, bend: Bend, wear: Wear, book: Book, headers: dict[str, str]
) -> None:
    """Generate and send; note every answer and every fault."""
    document = httpx.get(f"{url}/openapi.json", trust_env=False).json()
    schema = schemathesis.openapi.from_dict(document, config=_config(url, seed, scale, headers))

    def before_call(context: HookContext, case: Any, kwargs: dict[str, Any]) -> None:
        wear.maybe()
        bend.before(case)

    def after_call(context: HookContext, case: Any, response: Response) -> None:
        is_json = "json" in (response.headers.get("content-type") or [""])[0]
        bend.after(case, response.status_code, response.json() if is_json and response.content else None)

    # Schemathesis offers these to the whole process alone.
    schemathesis.hook(before_call)
    schemathesis.hook(after_call)
    try:
        for event in from_schema(schema).execute():
            _note(event, book)
    finally:
        hooks.unregister_all()


def _config(url: str, seed: int, scale: Scale, headers: dict[str, str]) -> Config:
    generation = {"database": "none", "no-shrink": True, "max-examples": scale.examples}
    return Config.from_dict(
        {
            "seed": seed,
            "base-url": url,
            "headers": headers,
            "request-timeout": REQUEST_S,
            "max-stream-events": 20,
            "continue-on-failure": True,
            "workers": 1,
            "generation": generation,
            "checks": {
                "positive_data_acceptance": {"expected-statuses": REFUSED},
                "negative_data_rejection": {"expected-statuses": INVALID},
                # An id is made of the question: asked again after a delete, it is there again.
                "use_after_free": {"enabled": False},
                "ensure_resource_availability": {"enabled": False},
                "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503"]},
                "ignored_auth": {"enabled": False},  # keys are in force where there are any: both are valid
            },
            "phases": {
                "examples": {"enabled": scale.coverage},
                "coverage": {"enabled": scale.coverage},
                "stateful": {
                    "enabled": scale.chains > 0,
                    "max-steps": scale.chain_steps or 2,
                    "generation": {**generation, "max-examples": scale.chains or 1},
                },
            },
        }
    )


@schemathesis.check
def documented_problem(ctx: CheckContext, response: Response, case: Any) -> None:
    """A problem has one of the codes that its operation lists for the status."""
    if response.status_code < 400:
        return
    said = response.json()
    assert said["status"] == response.status_code, said
    listed = case.operation.definition.raw["responses"].get(str(response.status_code), {}).get("x-codes", ())
    assert said["code"] in listed or said["code"] in EVERYWHERE, (
        f"{case.operation.label} answers {response.status_code} {said['code']}, and lists {list(listed)}"
    )
    if response.status_code in (429, 503) and said["code"] != "model_unavailable":
        assert "retry-after" in response.headers, said


def _note(event: events.EngineEvent, book: Book) -> None:
    if isinstance(event, events.NonFatalError):
        book.fault(f"{event.label}: {event.value!r}")
    elif isinstance(event, events.FatalError):
        book.fault(f"the engine: {event.exception!r}")
    elif isinstance(event, events.ScenarioFinished):
        recorder = event.recorder
        for case_id, interaction in recorder.interactions.items():
            label = recorder.cases[case_id].value.operation.label
            if interaction.response is None:
                book.fault(f"{label}: no answer")
                continue
            book.note(label, interaction.response.status_code)
        for case_id, checks in recorder.checks.items():
            for check in checks:
                if check.status != Status.SUCCESS and check.failure_info is not None:
                    label = recorder.cases[case_id].value.operation.label
                    failure = check.failure_info.failure
                    book.fault(f"{label}: {check.name}: {failure}\n  {check.failure_info.code_sample}")


def check_nothing_is_left(url: str, book: Book, headers: dict[str, str]) -> None:
    """Cancel what waits or runs, and see that all of it ends and that the worker lives and answers."""
    with httpx.Client(base_url=url, headers=headers, timeout=REQUEST_S, trust_env=False) as http:
        deadline_s = time.monotonic() + END_S
        while left := list(_unended(http)):
            for each in left:
                http.post(f"{each}/cancel")
            if time.monotonic() > deadline_s:
                book.fault(f"{len(left)} of them do not end: {left[:3]}")
                return
            time.sleep(0.2)
        if http.get("/readyz").status_code != 200:
            book.fault(f"after all of it: {http.get('/readyz').text}")
        question = {"model": "digits", "layer": "fc", "unit": 0, "steps": 3, "seed": 4711}
        answer = http.post("/v1/visualizations", json=question, headers={"Prefer": "wait=30"})
        if answer.json().get("state") != "succeeded":
            book.fault(f"after all of it a plain question is answered with {answer.text[:500]}")


WAITING = "state=queued&state=running"
OPEN = {"batches": "state=running", "visualizations": WAITING, "attributions": WAITING}


def _unended(http: httpx.Client) -> Iterator[str]:
    for kind, states in OPEN.items():
        page: str | None = f"/v1/{kind}?{states}&limit=200"
        while page:
            found = http.get(page)
            if found.status_code == 429:  # its key has asked for much by now
                time.sleep(float(found.headers.get("Retry-After", "1")))
                continue
            found.raise_for_status()
            document = found.json()
            yield from (each["links"]["self"] for each in document[kind])
            page = document["links"]["next"]
