"""Settings come from the environment that is passed, and unsafe ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxygrad.protocol.addresses import is_loopback
from service.settings import ServiceSettings
from workers.errors import SettingsError


def test_defaults_are_those_that_a_newcomer_needs(tmp_path: Path) -> None:
    settings = ServiceSettings.from_env({"HOME": str(tmp_path)})
    assert (settings.host, settings.port, settings.keys_required) == ("127.0.0.1", 8000, False)
    assert (settings.max_steps, settings.max_size_px, settings.redis_url) == (2048, 512, None)
    assert settings.home == tmp_path / ".local/share/proxygrad"


def test_every_variable_is_read(tmp_path: Path) -> None:
    environ = {
        "PROXYGRAD_HOME": str(tmp_path),
        "PROXYGRAD_HOST": "0.0.0.0",
        "PROXYGRAD_PORT": "0",
        "PROXYGRAD_REQUIRE_KEYS": "TRUE",
        "PROXYGRAD_ALLOWED_HOSTS": "Example.org, *.example.net",
        "PROXYGRAD_CORS_ORIGINS": "https://example.org,http://[::1]:8080",
        "PROXYGRAD_MAX_BODY_BYTES": "2048",
        "PROXYGRAD_MAX_COST": "0.5",
        "PROXYGRAD_MAX_STEPS": "16",
        "PROXYGRAD_MAX_SIZE_PX": "64",
    }
    settings = ServiceSettings.from_env(environ)
    assert (settings.home, settings.host, settings.port) == (tmp_path, "0.0.0.0", 0)
    assert (settings.require_keys, settings.max_steps, settings.max_size_px) == (True, 16, 64)
    assert settings.allowed_hosts == ("example.org", "*.example.net")
    assert settings.cors_origins == ("https://example.org", "http://[::1]:8080")
    assert (settings.max_body_bytes, settings.max_cost) == (2048, 0.5)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PROXYGRAD_PORT", "http", "'http'"),
        ("PROXYGRAD_PORT", "65536", "0 to 65535"),
        ("PROXYGRAD_REQUIRE_KEYS", "perhaps", "true, false"),
        ("PROXYGRAD_ALLOWED_HOSTS", "example.org:80/x", "without port"),
        ("PROXYGRAD_ALLOWED_HOSTS", "*", "host names"),
        ("PROXYGRAD_CORS_ORIGINS", "*", "no *"),
        ("PROXYGRAD_CORS_ORIGINS", "https://example.org/page", "https://host"),
        ("PROXYGRAD_MAX_BODY_BYTES", "10", "1024 to 16777216"),
        ("PROXYGRAD_MAX_COST", "0", "above 0"),
        ("PROXYGRAD_MAX_COST", "nan", "above 0"),
        ("PROXYGRAD_MAX_COST", "much", "a number"),
        ("PROXYGRAD_MAX_STEPS", "0", "1 to 4096"),
        ("PROXYGRAD_MAX_STEPS", "5000", "1 to 4096"),
        ("PROXYGRAD_MAX_SIZE_PX", "4", "8 to 1024"),
        *(
            ("PROXYGRAD_PUBLIC_URL", url, "valid: https://viz.example.org or https://example.org/viz")
            for url in (
                "viz.example.org",
                "ftp://x",
                "https://",
                "https://a/b?c",
                "https://u:p@a",
                "https://a//b",
            )
        ),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_variable(variable: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError, match=variable) as refused:
        ServiceSettings.from_env({"HOME": "/nowhere", variable: value})
    assert said in str(refused.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.org", "127.0.0.1.example.org"])
def test_where_others_reach_it_keys_are_required_and_nothing_takes_that_away(host: str) -> None:
    environ = {"HOME": "/nowhere", "PROXYGRAD_HOST": host}
    assert ServiceSettings.from_env(environ).keys_required
    with pytest.raises(SettingsError, match="PROXYGRAD_REQUIRE_KEYS is false"):
        ServiceSettings.from_env(environ | {"PROXYGRAD_REQUIRE_KEYS": "false"})


def test_on_loopback_keys_are_required_where_it_is_said() -> None:
    environ = {"HOME": "/nowhere", "PROXYGRAD_REQUIRE_KEYS": "true"}
    assert ServiceSettings.from_env(environ).keys_required
    assert not ServiceSettings.from_env(environ | {"PROXYGRAD_REQUIRE_KEYS": "false"}).keys_required


def test_a_public_name_requires_keys_unless_it_is_said() -> None:
    def settings(**environ: str) -> ServiceSettings:
        return ServiceSettings.from_env({"HOME": "/nowhere", **environ})

    assert not settings(PROXYGRAD_PUBLIC_URL="http://127.0.0.1:8000/viz").keys_required
    public = settings(PROXYGRAD_PUBLIC_URL="https://viz.example.org/")
    assert public.keys_required
    assert public.public_url == "https://viz.example.org"
    said = settings(PROXYGRAD_PUBLIC_URL="https://viz.example.org", PROXYGRAD_REQUIRE_KEYS="false")
    assert not said.keys_required


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_loopback_addresses_are_known(host: str) -> None:
    assert is_loopback(host)
