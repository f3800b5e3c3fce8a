"""Backup and restore by the commands of the deploy guide, on another server and in another folder."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis

from proxygrad.spec import ModelInfo
from service.app import create_app
from service.auth.keys import Keys
from service.settings import ServiceSettings
from service.stack.valkey import EmbeddedValkey
from tests.service.conftest import PNG, Http, Player
from tests.support.command_processes import REPOSITORY
from tests.support.eventually import until
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel
from workers.storage.store import Store

GUIDE = (REPOSITORY / "docs/deploy.md").read_text().partition("\n## Backup and restore\n")[2]
BACKUP, RESTORE = re.findall(r"^```sh\n(.*?)^```$", GUIDE.partition("\n## ")[0], re.M | re.S)
QUESTION = {"model": "digits", "layer": "layer3", "unit": 7}


class Site:
    """An installation: the folders that the guide names, below one of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.redis_dir = folder / "var/lib/redis"
        self.store = folder / "var/lib/proxygrad/artifacts"
        self.store.mkdir(parents=True)
        self.redis_dir.mkdir(parents=True)

    def run(self, block: str, **environ: str) -> None:
        """The commands as printed; what only root of a server can do is left out."""
        for place in ("/var/lib", "/backup"):
            block = block.replace(place, f"{self.folder}{place}")
        lines = [line for line in block.splitlines() if not re.match("systemctl|chown", line)]
        command = ["bash", "-euc", "\n".join(lines)]
        done = subprocess.run(
            command, env={**os.environ, **environ}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def settings(self, redis_url: str) -> ServiceSettings:
        environ = {"REDIS_URL": redis_url, "PROXYGRAD_STORE": self.store.as_uri()}
        return ServiceSettings.from_env({**environ, "PROXYGRAD_HOME": str(self.folder / "home")})


def records(redis: Redis) -> dict[bytes, Any]:
    """Every key with its value, but for what live workers publish, which ends by itself."""
    read: dict[bytes, Callable[[bytes], Any]] = {
        b"hash": redis.hgetall,
        b"list": lambda key: redis.lrange(key, 0, -1),
        b"set": redis.smembers,
        b"stream": redis.xrange,
        b"string": redis.get,
        b"zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
    }
    return {
        key: read[cast(bytes, redis.type(key))](key)
        for key in cast("list[bytes]", redis.keys("*"))
        if not re.search(rb"models:|workers|readiness|presence", key)
    }


@contextmanager
def running(site: Site, info: ModelInfo) -> Iterator[tuple[Http, Redis, ServiceSettings]]:
    """A gateway on the site's own server and store, while a worker serves `digits`."""
    with EmbeddedValkey(site.redis_dir) as server, Redis.from_url(server.url) as redis:
        settings = site.settings(server.url)
        catalog.publish(redis, "worker-1", [ServedModel(name="digits", info=info)], ttl_s=60)
        app = create_app(settings)
        yield Http(app), redis, settings
        app.state.backend.redis.close()


def back_up(site: Site, redis: Redis, with_cli: bool) -> None:
    """The guide's commands; without `redis-cli`, the same dump by the server itself."""
    (site.folder / "backup").mkdir()
    if with_cli:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        redis.config_set("port", port)
        redis.config_set("repl-diskless-sync-delay", 0)  # it would wait 5 s for more that want the dump
        site.run(BACKUP, REDIS_URL=f"redis://127.0.0.1:{port}/0")
        return
    first, _, rest = BACKUP.partition("\n")
    assert first.endswith("--rdb /backup/proxygrad.rdb")
    redis.bgsave()
    until(lambda: redis.info("persistence")["rdb_bgsave_in_progress"] == 0)
    shutil.copy(site.redis_dir / "dump.rdb", site.folder / "backup/proxygrad.rdb")
    site.run(rest)


@pytest.mark.parametrize("with_cli", [True, False], ids=["redis-cli", "by the server"])
def test_what_was_backed_up_is_there_again(with_cli: bool, info: ModelInfo, tmp_path: Path) -> None:
    if with_cli and not shutil.which("redis-cli"):
        pytest.skip("needs redis-cli")
    first, second = Site(tmp_path / "first"), Site(tmp_path / "second")
    with running(first, info) as (http, redis, settings):
        done, waiting = (http.ask(json={**QUESTION, "unit": unit}).json()["id"] for unit in (7, 8))
        Player(redis, Store.from_url(settings.store_url), info).succeed(done)
        batch = http("POST", "/v1/batches", json={"model": "digits", "layer": "fc"}).json()["id"]
        _, token = Keys(redis).create("ops", ("admin",))
        kept = records(redis)
        back_up(first, redis, with_cli)
        assert records(redis) == kept, "the backup changed something"
        redis.set("later", "lost")

    shutil.copytree(first.folder / "backup", second.folder / "backup")
    shutil.rmtree(first.folder)
    (second.redis_dir / "appendonlydir").mkdir()  # of a server that had begun anew
    second.run(RESTORE)
    with running(second, info) as (http, redis, _):
        assert records(redis) == kept
        path = f"/v1/visualizations/{done}"
        assert http.get(path).status_code == 401
        with_key = {"headers": {"Authorization": f"Bearer {token}"}}
        assert http.get(path, **with_key).json()["state"] == "succeeded"
        assert http.get(f"{path}/images/0", **with_key).content == PNG
        assert http.get(f"/v1/visualizations/{waiting}", **with_key).json()["state"] == "queued"
        assert http.get(f"/v1/batches/{batch}", **with_key).json()["state"] == "running"
        redis.set("more", "written")
    with running(second, info) as (http, redis, _):
        assert redis.get("more") == b"written", "the log did not go on behind the dump"
