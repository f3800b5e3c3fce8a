"""Behind nginx and Caddy, with TLS and below a prefix, from the configuration that the deploy guide names."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
import redis as redis_client

from proxygrad.client import Client
from proxygrad.client.config import ClientConfig
from proxygrad.spec import ModelInfo
from service.settings import ServiceSettings
from tests.service.conftest import PNG, Player
from tests.service.server.test_run import gateway
from tests.support.command_processes import REPOSITORY
from tests.support.eventually import until
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel

_NGINX = """
daemon off; {user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {servers}
}}
"""
_CADDY = "{{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}}\n{sites}"


class Sites:
    """The two sites of the guide: at the root of a host name, and below a prefix."""

    def __init__(self, root: int, below: int) -> None:
        self.root = f"https://localhost:{root}"
        self.below = f"https://localhost:{below}/proxygrad"


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def nginx(folder: Path, pem: Path, backend: int, root: int, below: int) -> list[str]:
    """nginx with the file of the guide: its ports and its certificate alone are others."""
    servers = (REPOSITORY / "deploy/nginx.conf").read_text()
    servers = servers.replace("127.0.0.1:8000", f"127.0.0.1:{backend}")
    for port in (root, below):
        servers = servers.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl", 1)
    servers = re.sub(r"/etc/ssl/proxygrad\.(pem|key)", str(pem), servers)
    user = "user root;" if os.getuid() == 0 else ""
    (folder / "main.conf").write_text(_NGINX.format(folder=folder, servers=servers, user=user))
    return ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(folder / "main.conf")]


def caddy(folder: Path, pem: Path, backend: int, root: int, below: int) -> list[str]:
    """Caddy with the file of the guide, and a certificate that it need not get."""
    sites = (REPOSITORY / "deploy/Caddyfile").read_text()
    sites = sites.replace("127.0.0.1:8000", f"127.0.0.1:{backend}")
    for name, port in (("viz", root), ("lab", below)):
        sites = sites.replace(f"{name}.example.org {{", f"https://localhost:{port} {{\n\ttls {pem} {pem}")
    (folder / "Caddyfile").write_text(_CADDY.format(sites=sites))
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl for a certificate")
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        [*command, *names, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True
    )
    with path.open("a") as file:
        file.write(Path(f"{path}.crt").read_text())
    return path


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
def sites(
    request: pytest.FixtureRequest,
    pem: Path,
    redis_url: str,
    redis: redis_client.Redis,
    settings: ServiceSettings,
    info: ModelInfo,
    tmp_path: Path,
) -> Iterator[Sites]:
    """A gateway process behind the proxy, while a worker is played."""
    name = request.param.__name__
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}")
    catalog.publish(redis, "worker-1", [ServedModel(name="digits", info=info)], ttl_s=120)
    backend, root, below = free_ports(3)
    (folder := tmp_path / name).mkdir()
    command = request.param(folder, pem, backend, root, below)
    environ = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with (
        gateway(settings.home, REDIS_URL=redis_url, PROXYGRAD_PORT=str(backend)) as process,
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log) as proxy,
    ):
        try:
            found = Sites(root, below)
            until(lambda: proxy.poll() is not None or answers(found.root, pem), 60)
            assert proxy.poll() is None, (folder / "log").read_text()
            yield found
        finally:
            proxy.terminate()
            process.terminate()
            process.communicate(timeout=60)
            proxy.wait(60)


def answers(url: str, pem: Path) -> bool:
    try:
        return httpx.get(f"{url}/readyz", verify=trusting(pem)).status_code == 200
    except httpx.TransportError:
        return False


def trusting(pem: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(pem))


def test_the_guides_configuration_serves_everything(
    sites: Sites, pem: Path, player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClientConfig, "local", False)  # where it is, the environment has no say
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    monkeypatch.setenv("NO_PROXY", "localhost")
    for unit, (url, prefix) in enumerate([(sites.root, ""), (sites.below, "/proxygrad")]):
        job_id = followed(url, prefix, unit, pem, player)
        with Client(url) as client:
            assert client.visualize(model="digits", layer="layer3", unit=unit).image() == PNG
            assert job_id in [each.id for each in client.visualizations()]


def followed(url: str, prefix: str, unit: int, pem: Path, player: Player) -> str:
    """Ask, follow every link of the answers, and give the id of the job."""
    forged = {"X-Forwarded-Prefix": "/forged"}
    with httpx.Client(verify=trusting(pem), timeout=60, headers=forged) as http:
        question = {"model": "digits", "layer": "layer3", "unit": unit}
        asked = http.post(f"{url}/v1/visualizations", json=question)
        assert asked.status_code == 202, asked.text
        location, job_id = asked.headers["location"], str(asked.json()["id"])
        assert location == f"{prefix}/v1/visualizations/{job_id}"
        player.begin(job_id)
        with http.stream("GET", f"{urljoin(url, location)}/events") as stream:
            lines = stream.iter_lines()
            assert "event: state" in lines, "an event of a job that still runs was kept back"
            player.succeed(job_id)
            assert '"state":"succeeded"' in "".join(lines).replace(" ", "")
        answer = http.get(urljoin(url, location)).json()
        assert http.get(urljoin(url, answer["links"]["image"])).content == PNG
        page = http.get(f"{url}/docs")
        (href,) = re.findall('href="([^"]*openapi.json)"', page.text)
        document = http.get(urljoin(f"{url}/docs", href)).json()
        assert document["servers"][0]["url"] == (prefix or "/")
        until(lambda: refused(http, url) == "body_too_large", 30)
    return job_id


def refused(http: httpx.Client, url: str) -> str | None:
    """The problem of a body that is too large; None where the proxy gave up.

    Caddy 2.6 does now and then, when the answer comes before it has looked for the end of the body.
    """
    try:
        return str(http.post(f"{url}/v1/visualizations", json={"x": "y" * 70_000}).json()["code"])
    except httpx.RemoteProtocolError:
        return None
