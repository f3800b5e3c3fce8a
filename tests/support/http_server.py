"""An application behind a real server on a real port, for tests that need time or sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from service.server.protocol import BoundedH11Protocol
from service.server.sockets import address, listen


@contextmanager
def serving(app: FastAPI, http: type[BoundedH11Protocol] = BoundedH11Protocol) -> Iterator[str]:
    """The URL of `app`, served from a thread until the block ends."""
    with listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", http=http))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.005)
            yield address(listener)
        finally:
            server.should_exit = True
            thread.join()
