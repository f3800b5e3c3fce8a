"""What `proxygrad serve` says where it needs a key and there is none: a command that makes it there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from service.auth.keys import Keys
from tests.support.command_processes import called
from workers.broker.connection import connect

OPEN = ("serve", "--host", "0.0.0.0", "--port", "0")


def hint(stderr: str) -> list[str]:
    """The words of the command that it names."""
    found = re.search(r"make one with `proxygrad (keys create [^`]*)`", stderr)
    assert found, stderr
    return shlex.split(found[1])


def test_the_named_command_makes_the_key_in_the_directory_that_was_served(tmp_path: Path) -> None:
    home = tmp_path / "my home"
    words = hint(called(tmp_path / "default", *OPEN, "--home", str(home)).stderr)
    assert words == ["keys", "create", "NAME", "--home", str(home)]
    assert called(tmp_path / "default", *words).returncode == 0
    assert "NAME" in called(tmp_path / "default", "keys", "list", "--home", str(home)).stdout


def test_where_redis_is_named_the_directory_is_not(redis_url: str, tmp_path: Path) -> None:
    with connect(redis_url) as redis:
        assert not Keys(redis).all().in_force
    refused = called(tmp_path, *OPEN, environ={"REDIS_URL": redis_url})
    assert hint(refused.stderr) == ["keys", "create", "NAME"]


def test_the_default_directory_is_not_named(tmp_path: Path) -> None:
    refused = called(tmp_path, *OPEN, environ={"PROXYGRAD_HOME": "", "HOME": str(tmp_path)})
    assert hint(refused.stderr) == ["keys", "create", "NAME"]
