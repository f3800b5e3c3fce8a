"""What is repeated, how often and after how long; what is not."""

from __future__ import annotations

import logging

import httpx
import pytest
import redis as redis_client

from proxygrad.client import (
    Client,
    Conflict,
    Failed,
    Invalid,
    NotFound,
    QueueFull,
    RateLimited,
    Refused,
    ServiceError,
    ServiceUnreachable,
    Unavailable,
)
from proxygrad.client.errors import retry_after_s
from proxygrad.client.retries import ApiCall, RetryPolicy
from tests.proxygrad.client.conftest import QUESTION, Connect, Pauses
from tests.service.conftest import Player
from tests.support.flaky_server import Flaky, Mood, busy, dropped, flaky, lost, passed
from workers.broker.rq_names import QUEUE_KEY

PROBLEM = (
    b'{"type":"x","title":"x","status":%d,"detail":"not now","code":"%s","errors":[],"state":null,"new":1}'
)


def problem(status: int, code: str, **headers: str) -> Mood:
    return busy(status, PROBLEM % (status, code.encode()), **headers)


AWAY = problem(503, "redis_unavailable", Retry_After="2")


def test_what_is_away_for_a_moment_is_asked_again_when_it_says(
    shaky: Flaky, connect: Connect, pauses: Pauses
) -> None:
    shaky.moods.extend([AWAY, AWAY, busy(502), dropped])
    assert len(connect(shaky.url).models()) == 2
    assert [each.path for each in shaky.seen] == ["/v1/models"] * 5
    assert [2 <= pause <= 4 for pause in pauses] == [True, True, False, False]


def test_a_question_whose_answer_got_lost_is_asked_again_and_computed_once(
    shaky: Flaky, connect: Connect, redis: redis_client.Redis
) -> None:
    shaky.moods.extend([lost, dropped, busy(504)])
    asked = connect(shaky.url).visualize(**QUESTION)
    assert [each.method for each in shaky.seen] == ["POST"] * 4
    assert (asked.state, redis.llen(QUEUE_KEY)) == ("queued", 1)


def test_what_was_canceled_or_deleted_unheard_is_so(shaky: Flaky, connect: Connect) -> None:
    asked = connect(shaky.url).visualize(**QUESTION)
    shaky.moods.extend([lost])
    assert asked.cancel().state == "canceled"
    shaky.moods.extend([lost])
    asked.delete()
    assert [each.method for each in shaky.seen[-2:]] == ["DELETE", "DELETE"]
    with pytest.raises(NotFound):
        asked.delete()


def test_a_retry_is_repeated_only_where_nothing_was_done(
    shaky: Flaky, connect: Connect, player: Player
) -> None:
    asked = connect(shaky.url).visualize(**QUESTION)
    player.fail(asked.id)
    for mood in (dropped, busy(502), busy(503)):
        shaky.moods.append(mood)
        with pytest.raises(ServiceError):
            asked.retry()
        assert asked.refresh().state == "failed"
    shaky.moods.extend([AWAY, problem(429, "rate_limited", Retry_After="1")])
    assert asked.retry().state == "queued"


@pytest.mark.parametrize(
    ("mood", "kind"),
    [
        (problem(400, "bad_request"), Invalid),
        (problem(404, "not_found"), NotFound),
        (problem(404, "image_not_ready", Retry_After="1"), NotFound),
        (problem(409, "visualization_ended"), Conflict),
        (problem(500, "internal_error"), Refused),
        (problem(503, "model_unavailable"), Unavailable),
        (problem(418, "newer_than_this_client"), Refused),
        (busy(500), ServiceError),
        (busy(200, b"{}"), ServiceError),
    ],
)
def test_what_would_not_change_is_not_repeated(
    connect: Connect, pauses: Pauses, mood: Mood, kind: type[ServiceError]
) -> None:
    with flaky() as server:
        server.moods.append(mood)
        with pytest.raises(kind) as refused:
            connect(server.url).models()
        assert type(refused.value) is kind
        assert (len(server.seen), pauses) == (1, [])


def test_there_is_an_end_to_it(connect: Connect, pauses: Pauses) -> None:
    with flaky() as server:
        server.moods.extend([dropped] * 9)
        with pytest.raises(ServiceUnreachable, match=server.url):
            connect(server.url).models()
        assert (len(server.seen), len(pauses)) == (5, 4)
        with pytest.raises(ServiceUnreachable):
            connect(server.url, retries=0).models()
        assert len(server.seen) == 6


def test_a_pause_that_is_too_long_is_left_to_the_caller(connect: Connect, pauses: Pauses) -> None:
    with flaky() as server:
        server.moods.extend([problem(429, "rate_limited", Retry_After="61")])
        with pytest.raises(RateLimited, match=r"not now \[rate_limited\]") as refused:
            connect(server.url).models()
        assert (refused.value.retry_after_s, refused.value.status, pauses) == (61, 429, [])
        server.moods.extend([problem(429, "queue_full", Retry_After="25")] * 3)
        with pytest.raises(QueueFull):
            connect(server.url).visualize(**QUESTION)
        assert len(pauses) == 2  # a third would end after more than the minute


def test_no_pause_leads_beyond_the_time_to_wait(shaky: Flaky, connect: Connect, pauses: Pauses) -> None:
    asked = connect(shaky.url).visualize(**QUESTION)
    shaky.moods.extend([problem(503, "redis_unavailable", Retry_After="5")])
    with pytest.raises(Unavailable):
        asked.wait(timeout_s=4)
    assert pauses == []


def test_nobody_there_is_named(connect: Connect, pauses: Pauses) -> None:
    client = connect("http://127.0.0.1:1")
    with pytest.raises(ServiceUnreachable, match=r"127\.0\.0\.1:1") as unreachable:
        client.models()
    assert (unreachable.value.unsent, len(pauses)) == (True, 4)


def test_the_log_says_why_it_takes_so_long(url: str, caplog: pytest.LogCaptureFixture) -> None:
    key = "pg_0123_secret"
    with flaky(url) as server, Client(server.url, key, sleep=lambda _: None, environ={}) as client:
        server.moods.append(AWAY)
        with caplog.at_level(logging.INFO, "proxygrad.client"):
            client.models()
    (record,) = caplog.records
    assert "not now [redis_unavailable]; trying again in" in record.getMessage()
    assert key not in caplog.text


def test_pauses_double_up_to_a_bound_and_differ_by_chance() -> None:
    away, call = ServiceUnreachable("away"), ApiCall("GET", "/")
    longest, shortest = RetryPolicy(99, 1e9, lambda: 0.0), RetryPolicy(99, 1e9, lambda: 1.0)
    pauses = [longest.pause_s(call, away, tries, 0.0) for tries in range(1, 9)]
    assert pauses == [0.25, 0.5, 1, 2, 4, 8, 8, 8]
    assert shortest.pause_s(call, away, 3, 0.0) == 0.5
    assert RetryPolicy(99, 60.0).pause_s(call, away, 9, 59.9) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_rfc_9110_has_it(text: str, seconds: float | None) -> None:
    found = retry_after_s(httpx.Headers({"Retry-After": text}))
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_waiting_survives_what_happens_meanwhile(shaky: Flaky, connect: Connect, player: Player) -> None:
    asked = connect(shaky.url).visualize(**QUESTION)
    player.fail(asked.id)
    shaky.moods.extend([AWAY, dropped, busy(502), passed])
    with pytest.raises(Failed, match="step 3"):
        asked.wait()


@pytest.mark.parametrize("progress", [True, False])
def test_a_restart_of_the_service_does_not_end_a_wait(
    shaky: Flaky, connect: Connect, player: Player, progress: bool
) -> None:
    asked = connect(shaky.url).visualize(**QUESTION)
    player.fail(asked.id)
    shaky.of_streams = dropped
    shaky.moods.extend([dropped] * 8)
    with pytest.raises(Failed, match="step 3"):
        asked.wait(progress)
    assert not shaky.moods


def test_a_wait_for_a_service_that_stays_away_has_an_end(
    shaky: Flaky, connect: Connect, pauses: Pauses
) -> None:
    asked, unwilling = (connect(shaky.url, **more).visualize(**QUESTION) for more in ({}, {"retries": 0}))
    shaky.moods.extend([dropped] * 99)
    with pytest.raises(ServiceUnreachable):
        asked.wait()
    assert 52 < sum(pauses) <= 60
    made = len(pauses)
    with pytest.raises(ServiceUnreachable):
        unwilling.wait()
    assert len(pauses) == made


def test_of_a_wait_the_time_counts_from_when_the_service_went_away() -> None:
    away, patience = ServiceUnreachable("away"), RetryPolicy(4, 60.0, lambda: 0.0)
    wait = ApiCall("GET", "/", patient=True, within_s=200.0)
    assert patience.pause_s(wait, away, 9, 90.0, 40.0) == 8
    assert patience.pause_s(wait, away, 9, 92.1, 40.0) is None
    assert patience.pause_s(wait, away, 9, 192.1, 190.0) is None
    assert patience.pause_s(ApiCall("GET", "/"), away, 2, 90.0, 40.0) is None
