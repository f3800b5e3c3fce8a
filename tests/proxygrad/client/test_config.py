"""Where a client asks and with which key, and that the key goes nowhere else."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import pytest

from proxygrad.client import BadAddress, Client, InsecureKeyWarning, InvalidArgument, ServiceError
from proxygrad.client.config import ClientConfig
from tests.proxygrad.client.conftest import Connect
from tests.support.flaky_server import busy, flaky

KEY = "pg_0123456789ab_" + "f" * 64
ENVIRON = {"PROXYGRAD_URL": "https://lab.example/proxygrad/", "PROXYGRAD_API_KEY": f" {KEY}\n"}


@pytest.mark.parametrize(
    ("url", "key", "environ", "address", "header"),
    [
        (None, None, {}, "http://127.0.0.1:8000", None),
        (None, None, {"PROXYGRAD_URL": "", "PROXYGRAD_API_KEY": ""}, "http://127.0.0.1:8000", None),
        (None, None, ENVIRON, "https://lab.example/proxygrad", f"Bearer {KEY}"),
        ("http://localhost:1", None, ENVIRON, "http://localhost:1", f"Bearer {KEY}"),
        (None, "other", ENVIRON, "https://lab.example/proxygrad", "Bearer other"),
        (None, "", ENVIRON, "https://lab.example/proxygrad", None),
        ("https://me:secret@lab.example:8443", None, {}, "https://lab.example:8443", None),
    ],
)
def test_what_is_given_goes_before_the_environment(
    url: str | None, key: str | None, environ: Mapping[str, str], address: str, header: str | None
) -> None:
    account = ClientConfig.of(url, key, environ)
    assert (account.address, account.headers.get("Authorization")) == (address, header)
    assert KEY not in repr(account)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "http://",
        "ftp://127.0.0.1",
        "http://[",
        "http://a b/",
        "http://h:99999",
        "x",
        "http://h/?a=b",
        "http://h#c",
    ],
)
def test_what_is_not_an_address_is_an_error_of_this_package(url: str) -> None:
    with pytest.raises(BadAddress, match="not the address of a server"):
        Client(url, environ={})


@pytest.mark.parametrize(
    ("setting", "valid"),
    [
        ({"retries": -1}, "0 or more"),
        ({"timeout_s": 0}, "more than 0, at most 86400"),
        ({"timeout_s": float("nan")}, "more than 0"),
        ({"timeout_s": float("inf")}, "more than 0"),
        ({"retry_for_s": -1.0}, "0 seconds or more"),
    ],
)
def test_times_that_no_request_could_have_are_refused(
    connect: Connect, setting: dict[str, float], valid: str
) -> None:
    with pytest.raises(InvalidArgument, match=valid) as refused:
        connect("http://127.0.0.1:1", **setting)
    assert str(refused.value).startswith(next(iter(setting)))


@pytest.mark.parametrize("key", ["pg_1 2", "pg_\nX-Evil: 1", "pg_é"])
def test_what_can_be_no_key_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Client("http://127.0.0.1:1", key, environ={})
    assert key not in str(refused.value)


def test_a_user_and_a_key_cannot_both_be_sent() -> None:
    with pytest.raises(BadAddress, match="only one of them") as refused:
        Client("https://me:secret@lab.example", KEY, environ={})
    assert "secret" not in str(refused.value)


def test_a_key_that_others_can_read_on_the_way_is_warned_of(connect: Connect) -> None:
    with pytest.warns(InsecureKeyWarning, match=r"unencrypted to lab\.example") as warned:
        connect("http://lab.example", KEY)
    assert KEY not in str(warned[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for url, key in (
            ("https://lab.example", KEY),
            ("http://127.0.0.1:1", KEY),
            ("http://[::1]:1", KEY),
            ("http://lab.example", None),
        ):
            connect(url, key)


def test_the_warning_names_the_line_that_made_the_client() -> None:
    with pytest.warns(InsecureKeyWarning) as warned:
        Client("http://lab.example", KEY, environ={})
    assert warned[0].filename == __file__


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_takes_the_key_along(connect: Connect, status: int) -> None:
    with flaky() as other, flaky() as server:
        server.moods.append(busy(status, Location=f"{other.url}/v1/models"))
        with pytest.raises(ServiceError, match=rf"{status} and leads to {other.url}") as refused:
            connect(server.url, KEY).models()
        assert [each.headers["authorization"] for each in server.seen] == [f"Bearer {KEY}"]
        assert other.seen == []
        assert KEY not in str(refused.value)


def test_no_link_of_an_answer_takes_the_key_along(connect: Connect) -> None:
    with flaky() as other, flaky() as server:
        for link in (f'"{other.url}/v1/visualizations?cursor=abc"', "null"):
            body = f'{{"visualizations": [], "links": {{"self": "/", "next": {link}}}}}'
            server.moods.append(busy(200, body.encode()))
        assert [*connect(server.url, KEY).visualizations()] == []
        assert "cursor=abc" in server.seen[1].path
        assert other.seen == []


def test_no_proxy_of_the_environment_leads_back_to_this_machine(
    connect: Connect, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert len(connect(url).models()) == 2
