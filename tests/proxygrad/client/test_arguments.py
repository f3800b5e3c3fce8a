"""What cannot be sent is an error of the client that names it, and nothing is sent."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from proxygrad.client import AsyncClient, ClientClosed, InvalidArgument, ServiceError
from tests.proxygrad.client.conftest import Connect, Pauses
from tests.support.flaky_server import flaky

np = pytest.importorskip("numpy", reason="its numbers are what is sent")

LAYER: dict[str, Any] = {"model": "digits", "layer": "layer3"}


def test_numbers_of_numpy_are_numbers(client: Any) -> None:
    asked = client.visualize(
        **LAYER, unit=np.int64(7), slope=np.float32(0.5), steps=np.uint8(16), compare=np.bool_(True)
    )
    assert (asked.spec.unit, asked.spec.slope, asked.spec.steps, asked.spec.compare) == (7, 0.5, 16, True)
    for units in (np.array([9, 3]), [np.int32(9), 3], (one for one in (9, 3))):
        batch = client.batch(**LAYER, units=units, seed=np.int64(1))
        assert [one.unit for one in batch.visualizations()] == [9, 3]


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("slope=nan", lambda client: client.visualize(**LAYER, unit=7, slope=math.nan)),
        ("step_size=inf", lambda client: client.batch(**LAYER, step_size=np.float64(np.inf))),
        ("seed=<object", lambda client: client.visualize(**LAYER, unit=7, seed=object())),
        ("webhook=b'x'", lambda client: client.visualize(**LAYER, unit=7, webhook=b"x")),
        ("model=", lambda client: client.visualize(model="\ud800", layer="fc", unit=7)),
        ("units=5", lambda client: client.batch(**LAYER, units=5)),
        ("units=None", lambda client: client.batch(**LAYER, units=None)),
        ("units=", lambda client: client.batch(**LAYER, units=[1.5])),
        ("idempotency_key=", lambda client: client.visualize(**LAYER, unit=7, idempotency_key="\xfc")),
        ("idempotency_key=", lambda client: client.visualize(**LAYER, unit=7, idempotency_key="a\nb")),
        ("idempotency_key=''", lambda client: client.visualize(**LAYER, unit=7, idempotency_key="")),
        ("visualization_id=None", lambda client: client.get(None)),
        ("visualization_id=''", lambda client: client.get("")),
        ("wait_s='x'", lambda client: client.get("a", "x")),
        ("batch_id=5", lambda client: client.get_batch(5)),
        ("name=None", lambda client: client.model(None)),
        ("model=None", lambda client: client.layers(None)),
        ("name='..'", lambda client: client.layer("digits", "..")),
        ("state=5", lambda client: list(client.visualizations(state=5))),
    ],
)
def test_what_cannot_be_sent_is_named(connect: Connect, pauses: Pauses, name: str, call: Any) -> None:
    with flaky() as server:
        with pytest.raises(InvalidArgument) as refused:
            call(connect(server.url))
        assert str(refused.value).startswith(name)
        assert isinstance(refused.value, ServiceError)
        assert (server.seen, pauses) == ([], [])


def test_a_closed_client_says_so(url: str, connect: Connect, pauses: Pauses) -> None:
    client = connect(url)
    asked = client.visualize(**LAYER, unit=7)
    client.close()
    for call in (client.models, asked.wait, asked.refresh, lambda: asked.wait(progress=True)):
        with pytest.raises(ClientClosed, match="has been closed"):
            call()
    assert pauses == []


def test_an_asynchronous_client_belongs_to_one_loop(url: str) -> None:
    client = AsyncClient(url, environ={})

    async def models() -> int:
        return len(await client.models())

    async def other() -> None:
        with pytest.raises(ClientClosed, match="another event loop"):
            await client.models()

    async def both() -> None:
        assert await models() == 2
        await asyncio.to_thread(asyncio.run, other())
        await client.close()

    asyncio.run(both())
