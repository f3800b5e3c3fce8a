"""Signatures that the library of Standard Webhooks takes; secrets of callers apart."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from service.auth.keys import KeyProblem, Keys
from service.cli.keys import webhook_secrets
from service.settings import ServiceSettings
from service.webhooks.signing import Signer
from workers.broker.connection import connect
from workers.errors import SettingsError

OLD, NEW = (f"whsec_{base64.b64encode(bytes([number]) * 32).decode()}" for number in (1, 2))
BODY = '{"type":"visualization.succeeded","data":{"id":"ä"}}'


def test_a_caller_s_own_secret_verifies_and_no_other() -> None:
    signer = Signer(OLD)
    headers = signer.headers("one", "id-1", BODY, time.time())
    (own,), (other,) = signer.secrets("one"), signer.secrets("two")
    assert Webhook(own).verify(BODY.encode(), headers)["type"] == "visualization.succeeded"
    for secret in (other, OLD):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(BODY, headers)
    for name, value in (("webhook-id", "id-2"), ("webhook-timestamp", "1")):
        with pytest.raises(WebhookVerificationError):
            Webhook(own).verify(BODY, {**headers, name: value})
    with pytest.raises(WebhookVerificationError):
        Webhook(own).verify(BODY + " ", headers)


def test_while_the_secret_changes_the_old_and_the_new_one_verify() -> None:
    headers = Signer(f"{NEW} {OLD}").headers("one", "id-1", BODY, time.time())
    assert len(headers["webhook-signature"].split()) == 2
    for master in (OLD, NEW):
        Webhook(Signer(master).secrets("one")[0]).verify(BODY, headers)
    assert Signer(f"{NEW}\n{OLD}").secrets("one")[0] == Signer(NEW).secrets("one")[0]


def test_with_or_without_prefix_and_padding_it_is_the_same_secret() -> None:
    bare = OLD.removeprefix("whsec_")
    assert Signer(bare).secrets("x") == Signer(bare.rstrip("=")).secrets("x") == Signer(OLD).secrets("x")


@pytest.mark.parametrize("secret", ["whsec_AAAA", "short", "whsec_c2hvcnQ=", "!!!", "A" * 100, f"{OLD} x"])
def test_a_bad_secret_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(SettingsError, match="PROXYGRAD_WEBHOOK_SECRET") as refused:
        ServiceSettings.from_env({"PROXYGRAD_WEBHOOK_SECRET": secret})
    assert secret not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PROXYGRAD_WEBHOOK_HOSTS", "a.example", "PROXYGRAD_WEBHOOK_SECRET is not"),
        ("PROXYGRAD_WEBHOOK_HOSTS", "a.example/x", "a.example/x"),
        ("PROXYGRAD_WEBHOOK_PRIVATE", "10.0.0.1/8", "10.0.0.1/8"),
    ],
)
def test_other_settings_that_cannot_be_used(variable: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        ServiceSettings.from_env({variable: value})


def test_settings_do_not_show_the_secret() -> None:
    assert OLD not in repr(ServiceSettings.from_env({"PROXYGRAD_WEBHOOK_SECRET": OLD}))


def test_the_command_prints_the_secret_of_a_key(redis_url: str, tmp_path: Path) -> None:
    environ = {"REDIS_URL": redis_url, "PROXYGRAD_HOME": str(tmp_path), "PROXYGRAD_WEBHOOK_SECRET": OLD}
    with connect(redis_url) as redis:
        key, _ = Keys(redis).create("lab", ("submit",))
        for _ in range(2):
            Keys(redis).create("twins", ("submit",))
    assert webhook_secrets(environ, "lab") == webhook_secrets(environ, key.id) == Signer(OLD).secrets(key.id)
    assert webhook_secrets(environ, "anonymous") == Signer(OLD).secrets("anonymous")
    with pytest.raises(KeyProblem, match="names: lab, twins"):
        webhook_secrets(environ, "nobody")
    with pytest.raises(KeyProblem, match="2 keys are called 'twins'"):
        webhook_secrets(environ, "twins")
    with pytest.raises(SettingsError, match="is not set"):
        webhook_secrets({**environ, "PROXYGRAD_WEBHOOK_SECRET": ""}, "lab")
