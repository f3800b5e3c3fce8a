"""One attempt: where it goes, and where it cannot be led."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence

import pytest

from service.addresses import networks
from service.webhooks.sender import DeliveryOutcome, Resolve, Sender
from service.webhooks.urls import Endpoint
from tests.support.webhook_receiver import receiving

LOOPBACK = networks(["127.0.0.1/32"])


def post(url: str, sender: Sender, count: int = 1) -> DeliveryOutcome:
    async def attempts() -> DeliveryOutcome:
        for _ in range(count):
            answer = await sender.post(Endpoint.of(url), {"webhook-id": "x"}, b"{}")
        await sender.aclose()
        return answer

    return asyncio.run(attempts())


def finding(*answers: Sequence[str]) -> tuple[Resolve, list[str]]:
    """A resolver with an answer for each time it is asked, the last one for ever, and what it was asked."""
    asked: list[str] = []

    async def find(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return find, asked


def named(url: str, name: str = "hooks.example.org") -> str:
    return url.replace("127.0.0.1", name)


def test_it_arrives_under_the_name_that_was_called() -> None:
    find, asked = finding(["127.0.0.1"])
    with receiving() as receiver:
        answer = post(named(receiver.url) + "/a?b=c", Sender(LOOPBACK, find=find))
        (got,) = receiver.received
    assert answer == DeliveryOutcome(204)
    assert asked == ["hooks.example.org"]
    assert got.path == "/a?b=c"
    assert got.headers["Host"] == named(receiver.url).removeprefix("http://")
    assert (got.headers["Content-Type"], got.headers["webhook-id"], got.body) == (
        "application/json",
        "x",
        b"{}",
    )


@pytest.mark.parametrize("private", [(), networks(["10.0.0.0/8"])])
def test_a_private_address_is_not_called(private: tuple[()]) -> None:
    with receiving() as receiver:
        answer = post(receiver.url, Sender(private))
        assert answer == DeliveryOutcome(error="the host leads to an address that is not public")
        assert receiver.received == []


def test_one_private_address_among_public_ones_is_enough() -> None:
    find, _ = finding(["127.0.0.1", "10.0.0.1"])
    with receiving() as receiver:
        assert "not public" in (post(named(receiver.url), Sender(LOOPBACK, find=find)).error or "")
        assert receiver.received == []


def test_a_name_that_changes_after_the_check_leads_nowhere_else() -> None:
    """Rebinding: each attempt asks once, and goes where that answer says or nowhere."""
    find, asked = finding(["127.0.0.1"], ["169.254.169.254"])
    sender = Sender(LOOPBACK, find=find)
    with receiving() as receiver:
        answer = post(named(receiver.url), sender, count=2)
        assert len(receiver.received) == 1
    assert len(asked) == 2
    assert "not public" in (answer.error or "")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with receiving() as other, receiving(lambda _: (status, {"Location": other.url})) as receiver:
        assert post(receiver.url, Sender(LOOPBACK)) == DeliveryOutcome(status)
        assert other.received == []


def test_a_slow_receiver_ends_with_the_time_for_it() -> None:
    wait = threading.Event()

    def slow(number: int) -> tuple[int, dict[str, str]]:
        wait.wait(30)
        return 204, {}

    with receiving(slow) as receiver:
        try:
            answer = post(receiver.url, Sender(LOOPBACK, attempt_s=0.2))
        finally:
            wait.set()
    assert answer == DeliveryOutcome(error="no answer within 0.2 s")


def test_what_does_not_answer_is_an_error_in_words() -> None:
    with receiving() as receiver:
        url = receiver.url
    assert (post(url, Sender(LOOPBACK)).error or "").startswith("no connection")
    find, _ = finding([])
    assert "not public" in (post(named(url), Sender(LOOPBACK, find=find)).error or "")

    async def fails(host: str, port: int) -> Sequence[str]:
        raise OSError("Name or service not known")

    assert post(named(url), Sender(LOOPBACK, find=fails)) == DeliveryOutcome(
        error="no connection: the host has no address"
    )


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy, receiving() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setitem(os.environ, name, proxy.url)
        assert post(receiver.url, Sender(LOOPBACK)) == DeliveryOutcome(204)
        assert (len(proxy.received), len(receiver.received)) == (0, 1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("120", 120.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("soon", None), ("-5", None), ("١", None)),
        ("9" * 30, None),
    ],
)
def test_when_to_come_back(text: str, seconds: float | None) -> None:
    headers = {"Retry-After": text} if text.isascii() else {}
    with receiving(lambda _: (503, headers)) as receiver:
        assert post(receiver.url, Sender(LOOPBACK)) == DeliveryOutcome(503, retry_after_s=seconds)


def test_a_tls_connection_is_for_the_name() -> None:
    """The receiver speaks no TLS: what it hears first is the client's hello, with the name in it."""
    import socket

    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            connection, _ = server.accept()
            with connection:
                heard.append(connection.recv(4096))

        thread = threading.Thread(target=listen)
        thread.start()
        find, _ = finding(["127.0.0.1"])
        answer = post(f"https://hooks.example.org:{server.getsockname()[1]}/", Sender(LOOPBACK, find=find))
        thread.join()
    assert answer.status is None
    assert b"hooks.example.org" in heard[0]


@pytest.mark.parametrize(
    ("status", "rest"),
    [(200, "Content-Length: 10\r\n\r\nabc"), (410, "Transfer-Encoding: chunked\r\n\r\nzz\r\n")],
)
@pytest.mark.parametrize("hangs", [False, True])
def test_only_the_status_counts_and_not_what_becomes_of_the_rest(status: int, rest: str, hangs: bool) -> None:
    async def attempt() -> DeliveryOutcome:
        over = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 {status} Said\r\n{rest}".encode())
            if hangs:
                await over.wait()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            sender = Sender(LOOPBACK)
            port = server.sockets[0].getsockname()[1]
            answer = await sender.post(Endpoint.of(f"http://127.0.0.1:{port}/"), {}, b"{}")
            over.set()
            await sender.aclose()
        return answer

    assert asyncio.run(attempt()) == DeliveryOutcome(status)
