"""Keys as they are kept and opened, and the command that makes them."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import cast

import pytest
import redis as redis_client

from service.auth import keys
from service.auth.keys import Key, KeyProblem, Keys, opened
from service.cli.keys import table
from service.stack.valkey import EmbeddedValkey
from tests.support.command_processes import called
from workers.broker.keys import API_KEYS_KEY

DAY_S = 86_400


def test_the_secret_is_not_kept(redis: redis_client.Redis) -> None:
    key, token = Keys(redis).create("team a")
    prefix, key_id, secret = token.split("_")
    assert (prefix, key_id, len(bytes.fromhex(secret))) == ("pg", key.id, 32)
    text = cast(bytes, redis.hget(API_KEYS_KEY, key.id)).decode()
    assert secret not in text
    assert json.loads(text)["digest"] == hashlib.sha256(secret.encode()).hexdigest()
    assert key.digest not in repr(key)


def test_two_keys_share_nothing(redis: redis_client.Redis) -> None:
    (one, first), (other, second) = Keys(redis).create("a"), Keys(redis).create("a")
    assert one.id != other.id
    assert first.split("_")[2] != second.split("_")[2]


def test_only_the_whole_key_opens(redis: redis_client.Redis) -> None:
    key, token = Keys(redis).create("a")
    known = Keys(redis).all().keys
    assert opened(token, known) == key
    wrong_secret, unknown = token[:-1] + ("0" if token[-1] != "0" else "1"), f"pg_{'0' * 12}_{token[16:]}"
    for other in (
        wrong_secret,
        unknown,
        token[:-1],
        token.upper(),
        token + "\n",
        "",
        "pg_",
        "\x00" * 80,
        "é",
    ):
        assert opened(other, known) is None


def test_an_unknown_id_and_a_wrong_secret_are_compared_alike(
    redis: redis_client.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same calls on the same lengths: time does not show which of them it was."""
    seen: list[tuple[int, int]] = []

    def compare(one: str, other: str) -> bool:
        seen.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr("service.auth.keys.hmac.compare_digest", compare)
    key, _ = Keys(redis).create("a")
    known = Keys(redis).all().keys
    for key_id in (key.id, "0" * 12):
        assert opened(f"pg_{key_id}_{'1' * 64}", known) is None
    assert seen == [(64, 64), (64, 64)]


def test_what_is_kept_comes_back(redis: redis_client.Redis) -> None:
    key, _ = Keys(redis).create("é", ["admin"], rate_per_min=None, in_flight=3, expires_days=1)
    assert Keys(redis).all().keys == {key.id: key}
    assert key.expires_at == key.created_at + DAY_S
    assert [key.state(key.created_at + after) for after in (0, DAY_S)] == ["valid", "expired"]


def test_a_revoked_key_stays_known_so_that_keys_stay_in_force(redis: redis_client.Redis) -> None:
    own = Keys(redis)
    assert not own.all().in_force
    key, _ = own.create("a", ["read"], in_flight=None)
    revoked = own.revoke(key.id)
    assert revoked.state(key.created_at) == "revoked"
    assert own.revoke(key.id) == revoked, "the first time counts"
    assert own.all() == keys.KeySet({key.id: revoked}, in_force=True)
    assert revoked.model_copy(update={"revoked_at": None}) == key, "nothing else has changed"


def test_revoking_what_is_not_there_names_what_is(redis: redis_client.Redis) -> None:
    key, _ = Keys(redis).create("a")
    with pytest.raises(KeyProblem, match=f"'nobody'; ids: {key.id}"):
        Keys(redis).revoke("nobody")


def test_a_record_that_cannot_be_read_opens_nothing_and_keeps_keys_in_force(
    redis: redis_client.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis.hset(API_KEYS_KEY, "0" * 12, '{"id": "x", "scopes": ["everything"]}')
    assert Keys(redis).all() == keys.KeySet({}, in_force=True)
    assert "opens nothing" in caplog.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ""}, "name ''"),
        ({"name": "x" * 101}, "name"),
        ({"scopes": []}, "scopes"),
        ({"rate_per_min": 0}, "rate_per_min 0"),
        ({"in_flight": -1}, "in_flight -1"),
        *(
            ({"expires_days": days}, f"expires_days {days!r}; valid: above 0, at most 36500")
            for days in (0, -1.0, 36_500.1, 1e7, math.nan, math.inf, -math.inf)
        ),
        *(
            ({"name": f"a{character}b"}, f"holds the control character {character!r}")
            for character in ("\n", "\x1b", "\x00", "\x7f", "\x9b", "\u2028")
        ),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(changes: dict[str, object], said: str) -> None:
    values: dict[str, object] = {"name": "a", "scopes": ["read"], **changes}
    with pytest.raises(KeyProblem, match=re.escape(said)):
        Key.made(now_s=0.0, **values)  # type: ignore[arg-type]


# -- the command ---------------------------------------------------------------------------------------------


def test_a_key_is_made_listed_and_revoked_where_redis_is(
    redis_url: str, redis: redis_client.Redis, tmp_path: Path
) -> None:
    environ = {"REDIS_URL": redis_url}
    made = called(tmp_path, "keys", "create", "me", "--scopes", "read", "--rate", "none", environ=environ)
    assert made.returncode == 0, made.stderr
    assert re.fullmatch(r"pg_[0-9a-f]{12}_[0-9a-f]{64}\n", made.stdout), "standard output is the key alone"
    assert "it is the first one" in made.stderr
    key = opened(made.stdout.strip(), Keys(redis).all().keys)
    assert key is not None
    assert (key.name, set(key.scopes), key.rate_per_min, key.in_flight) == ("me", {"read"}, None, 200)
    gone = called(tmp_path, "keys", "revoke", key.id, environ=environ)
    assert gone.returncode == 0, gone.stderr
    assert Keys(redis).all().keys[key.id].revoked_at is not None


def test_a_key_is_made_in_the_data_directory_whether_its_server_runs_or_not(tmp_path: Path) -> None:
    first = called(tmp_path, "keys", "create", "one")
    assert first.returncode == 0, first.stderr
    with EmbeddedValkey(tmp_path / "valkey"):
        second = called(tmp_path, "keys", "create", "two")
        assert second.returncode == 0, second.stderr
    listed = called(tmp_path, "keys", "list")
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[1] for line in listed.stdout.splitlines()[1:]] == ["one", "two"]
    assert "it is the first one" not in second.stderr


def test_the_data_directory_may_be_named_before_or_after_the_verb(tmp_path: Path) -> None:
    elsewhere, other = str(tmp_path / "elsewhere"), str(tmp_path / "other")
    made = called(tmp_path / "home", "keys", "create", "one", "--home", elsewhere)
    assert made.returncode == 0, made.stderr
    assert not (tmp_path / "home").exists()
    for arguments in (("--home", elsewhere, "list"), ("--home", other, "list", "--home", elsewhere)):
        listed = called(tmp_path / "home", "keys", *arguments)
        assert [line.split()[1] for line in listed.stdout.splitlines()[1:]] == ["one"], listed.stderr


def test_a_second_key_of_one_name_is_said(redis_url: str, redis: redis_client.Redis, tmp_path: Path) -> None:
    ids = [Keys(redis).create(name)[0].id for name in ("me", "me", "you")]
    Keys(redis).revoke(ids[1])
    made = called(tmp_path, "keys", "create", "me", environ={"REDIS_URL": redis_url})
    assert f"not revoked, of the same name: {ids[0]} (`proxygrad keys revoke ID`)" in made.stderr
    alone = called(tmp_path, "keys", "create", "them", environ={"REDIS_URL": redis_url})
    assert "same name" not in alone.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "a", "--scopes", "read,write"], "valid, with commas between: read, submit"),
        (["create", "a", "--expires-days", "nan"], "expires_days nan; valid: above 0, at most 36500"),
        (["create", "a\x1b[2J"], "holds the control character '\\x1b'"),
        (["create", "a", "--rate", "0"], "a whole number from 1, or none"),
        (["revoke", "nobody"], "there is no key 'nobody'; ids: there are none"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: list[str], said: str, redis_url: str, tmp_path: Path) -> None:
    done = called(tmp_path, "keys", *arguments, environ={"REDIS_URL": redis_url})
    assert done.returncode != 0
    assert said in done.stderr


def test_the_table_shows_limits_and_states() -> None:
    key, _ = Key.made("a", ["submit", "read"], 0.0, rate_per_min=None, expires_days=1)
    head, row = table([key], 2 * DAY_S).splitlines()
    assert head.split()[:4] == ["id", "name", "state", "scopes"]
    assert row.split()[1:6] == ["a", "expired", "read,submit", "–", "200"]
    assert table([], 0.0) == "there are no keys"


def test_the_longest_and_the_shortest_time_can_be_listed() -> None:
    made = [Key.made("a", ["read"], 2e9, expires_days=days)[0] for days in (keys.MAX_EXPIRES_DAYS, 1e-12)]
    assert [key.state(2e9) for key in made] == ["valid", "expired"]
    assert "2133-04-24" in table(made, 2e9)


def test_what_was_kept_before_it_was_refused_is_listed_all_the_same(redis: redis_client.Redis) -> None:
    key, token = Keys(redis).create("a")
    old = key.model_copy(update={"name": "b\n\x1b[2Jé", "expires_at": key.created_at + 1e7 * DAY_S})
    redis.hset(API_KEYS_KEY, key.id, old.model_dump_json())
    known = Keys(redis).all().keys
    assert opened(token, known) == old
    lines = table(list(known.values()), key.created_at).splitlines()
    assert len(lines) == 2
    assert "b\\n\\x1b[2Jé" in lines[1]
    assert lines[1].endswith(f"  {old.expires_at:g}s")
