"""Batches over HTTP: asked for in their time, looked at to their end, asked for again when forgotten."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from proxygrad.client import Client, Refused, ServiceUnreachable
from proxygrad.errors import ProxyGradError
from tests.chaos.book import Book
from tests.chaos.plan import Bundle

LOOK_S = 1.0


class BundleCaller(threading.Thread):
    """Asks for its ``bundles``, until all have ended or ``over`` is set."""

    def __init__(self, client: Client, bundles: Sequence[Bundle], book: Book, over: threading.Event) -> None:
        super().__init__(name="bundles", daemon=True)
        self._client = client
        self._book = book
        self._over = over
        self._planned = deque(bundles)
        self._open: dict[str, Bundle] = {}

    @property
    def done(self) -> bool:
        """Whether all was asked, and has ended."""
        return not self._planned and not self._open

    def run(self) -> None:
        began_s = time.monotonic()
        while not self._over.wait(LOOK_S) and not self.done:
            try:
                self._round(time.monotonic() - began_s)
            except (Refused, ServiceUnreachable) as error:
                self._book.refuse(error.code)
            except Exception as error:
                code = error.code if isinstance(error, ProxyGradError) else type(error).__name__
                self._book.complain(f"{self.name} was answered with {code}: {error}")

    def _round(self, now_s: float) -> None:
        while self._planned and self._planned[0].at_s <= now_s:
            self._ask(self._planned[0])
            self._planned.popleft()
        for batch_id, bundle in list(self._open.items()):
            try:
                ended = self._client.get_batch(batch_id).state != "running"
            except Refused as error:
                if error.code != "unknown_batch":
                    raise
                del self._open[batch_id]
                self._ask(bundle)
            else:
                if ended:
                    del self._open[batch_id]

    def _ask(self, bundle: Bundle) -> None:
        fields = bundle.request.model_dump(mode="json", exclude_unset=True)
        batch_id = self._client.batch(**fields).id
        self._book.bundles.setdefault(bundle.number, []).append(batch_id)
        self._open[batch_id] = bundle
