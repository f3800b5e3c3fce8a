"""The Dockerfile and the compose files: what they promise, as far as it shows without building them."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis

from workers.fleet.catalog import publish, withdraw
from workers.process.main import worker_name

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
OURS = ("gateway", "worker")


def _stage(name: str) -> str:
    match = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.M | re.S)
    assert match, f"the Dockerfile has no stage {name!r}"
    return match.group(1)


@pytest.mark.parametrize("target", OURS)
def test_each_image_runs_unprivileged_and_says_how_to_ask_and_stop_it(target: str) -> None:
    stage = _stage(target)
    assert re.search(r"^USER \d+:\d+$", stage, re.M)
    assert "HEALTHCHECK" in stage
    assert "STOPSIGNAL SIGTERM" in stage


def test_every_install_is_held_to_the_constraints() -> None:
    installs = re.findall(r"pip install (.*)$", DOCKERFILE, re.M)
    assert installs
    for install in installs:
        assert "--no-cache-dir" in install
        assert "--constraint constraints.txt" in install or "--no-deps" in install


@pytest.mark.parametrize(
    ("target", "packages"), [("gateway", {"service", "workers"}), ("worker", {"workers"})]
)
def test_each_image_has_its_application_on_the_path(target: str, packages: set[str]) -> None:
    (path,) = re.findall(r"PYTHONPATH=(\S+)", _stage("base"))
    assert set(re.findall(rf"^COPY (\w+) {path}/\1$", _stage(target), re.M)) == packages
    assert re.search(r'^CMD \["python", "-m", "(\w+)"\]', _stage(target), re.M)[1] in packages  # type: ignore[index]


def test_what_is_copied_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists()
            assert kept & {source, source.partition("/")[0]}


@pytest.mark.parametrize("name", OURS)
def test_each_of_our_services_waits_for_valkey_and_comes_from_its_target(name: str) -> None:
    service = SERVICES[name]
    assert service["depends_on"] == {"valkey": {"condition": "service_healthy"}}
    assert service["build"]["target"] == name
    assert service["environment"]["REDIS_URL"].startswith("redis://valkey:")


def test_gateway_and_worker_share_one_store() -> None:
    stores = {SERVICES[name]["environment"]["PROXYGRAD_STORE"] for name in OURS}
    assert stores == {"file:///var/lib/proxygrad/artifacts"}
    assert all("data:/var/lib/proxygrad" in SERVICES[name]["volumes"] for name in OURS)


def test_the_queue_survives_a_crash_and_is_never_evicted() -> None:
    command = " ".join(SERVICES["valkey"]["command"])
    for setting in ("--appendonly yes", "--appendfsync everysec", "--maxmemory-policy noeviction"):
        assert setting in command
    assert "valkey:/data" in SERVICES["valkey"]["volumes"]


def test_nothing_is_published_beyond_this_machine() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def _ask(target: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, str(ROOT / "deploy/health.py"), target]
    environ = {"PYTHONPATH": str(ROOT), **environ}
    return subprocess.run(script, env=environ, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("target", OURS)
def test_the_health_check_fails_in_one_line_where_nothing_runs(target: str, tmp_path: Path) -> None:
    asked = _ask(target, {"PROXYGRAD_PORT": "1", "REDIS_URL": f"unix://{tmp_path}/absent.sock"})
    assert asked.returncode == 1
    assert len(asked.stderr.splitlines()) == 1


def test_a_worker_is_healthy_as_long_as_its_own_word_holds(redis: Redis, redis_url: str) -> None:
    mine, other = worker_name(), "elsewhere-1-abcd"
    publish(redis, other, [], ttl_s=60)
    assert other in _ask("worker", {"REDIS_URL": redis_url}).stderr
    publish(redis, mine, [], ttl_s=60)
    assert _ask("worker", {"REDIS_URL": redis_url}).returncode == 0
    withdraw(redis, mine)
    assert _ask("worker", {"REDIS_URL": redis_url}).returncode == 1


def test_a_gateway_is_healthy_while_it_answers(redis_url: str, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {"PROXYGRAD_PORT": str(port), "REDIS_URL": redis_url, "PROXYGRAD_HOME": str(tmp_path)}
    gateway = subprocess.Popen(
        [sys.executable, "-m", "service"], env=environ, cwd=ROOT, stderr=subprocess.PIPE
    )
    try:
        assert gateway.stderr is not None
        while b"Application startup complete" not in gateway.stderr.readline():
            assert gateway.poll() is None
        assert _ask("gateway", environ).returncode == 0
    finally:
        gateway.terminate()
        gateway.communicate(timeout=60)
    assert _ask("gateway", environ).returncode == 1
