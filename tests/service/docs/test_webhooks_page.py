"""What docs/webhooks.md says holds."""

from __future__ import annotations

import base64
import re
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from redis import Redis

from service.webhooks.dispatcher import MOST, MOST_EACH, SCHEDULE_S
from service.webhooks.sender import ATTEMPT_S
from service.webhooks.signing import Signer
from tests.service.webhooks.test_dispatcher import SECRET, deliver, is_in, tell
from workers.broker.limits import MAX_DELIVERIES, MAX_WEBHOOKS

PAGE = (Path(__file__).parents[3] / "docs/webhooks.md").read_text()


def test_the_receiver_that_is_shown_takes_what_is_sent_and_nothing_else(redis: Redis) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    events: list[dict[str, Any]] = []
    names: dict[str, Any] = {"SECRET": Signer(SECRET).secrets("one")[0], "EVENTS": events}
    exec(compile(code, "docs/webhooks.md", "exec"), names)
    names["Receiver"].log_message = lambda *words: None
    with ThreadingHTTPServer(("127.0.0.1", 0), names["Receiver"]) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            delivery_id = tell(redis, url)
            deliver(redis, [url], is_in(redis, delivery_id, "delivered", "exhausted"))
            forged = Signer(base64.b64encode(b"x" * 32).decode()).headers("one", "id", "{}", time.time())
            answer = httpx.post(url, content="{}", headers=forged, trust_env=False)
        finally:
            server.shutdown()
            thread.join()
    assert [event["type"] for event in events] == ["visualization.succeeded"]
    assert answer.status_code == 401


def test_the_figures_are_those_of_the_code() -> None:
    (row,) = re.findall(r"\| after the previous attempt \| at once \| (.*) \|\n", PAGE)
    seconds = {"s": 1, "min": 60, "h": 3600}
    assert [int(n) * seconds[unit] for n, unit in re.findall(r"(\d+) (\w+)", row)] == list(SCHEDULE_S)
    for words in (
        *(
            f"no response within {ATTEMPT_S:g} s",
            f"at most {MOST} at a time",
            f"and {MOST_EACH} to one receiver",
        ),
        *(f"up to {MAX_WEBHOOKS} URLs per", f"{MAX_DELIVERIES:,}"),
    ):
        assert words in " ".join(PAGE.split())
