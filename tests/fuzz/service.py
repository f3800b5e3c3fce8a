"""A gateway, a worker with two models, and a Valkey, as `proxygrad serve` has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.settings import ServiceSettings
from service.stack.supervisor import Stack

#: The operator's limits: the defaults of a question cost 0.13, and the worker keeps up.
LIMITS = {
    "PROXYGRAD_MAX_COST": "0.2",
    "PROXYGRAD_MAX_STEPS": "256",
    "PROXYGRAD_MAX_SIZE_PX": "64",
    "PROXYGRAD_MAX_QUEUED": "400",
    "PROXYGRAD_MAX_QUEUED_PER_CALLER": "300",
}
#: A model whose classes have no names, and which takes images of its own size alone.
NAMELESS = """\
[models.nameless]
builder = "tests.support.configured_networks:constant"
input_shape = [1, 8, 8]
"""


@contextmanager
def service(home: Path) -> Iterator[Stack]:
    """All of it, ready to answer; its logs are in ``home``."""
    (home / "models.toml").write_text(NAMELESS)
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("PROXYGRAD_", "REDIS_"))}
    environ = {**kept, **LIMITS, "PROXYGRAD_HOME": str(home), "PROXYGRAD_PORT": "0", "OMP_NUM_THREADS": "1"}
    with Stack(ServiceSettings.from_env(environ), environ, home / "logs") as stack:
        yield stack
