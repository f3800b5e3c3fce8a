"""Paths that middleware treats apart from the others."""

from __future__ import annotations

#: Probes of whoever runs the server: answered for every host name, since they come by the machine's address.
PROBES = frozenset({"/livez", "/readyz", "/startupz"})
#: Scraped by Prometheus, also by the machine's address. Where keys are required, the key guards it.
SCRAPED = frozenset({"/metrics"})
#: Answered without a key: probes, and what the server publishes about itself. Nothing of any caller.
OPEN_PATHS = PROBES | {"/", "/openapi.json", "/docs"}
#: Answered without Redis too, since they report that it is away: by the keys as they were last read.
WITHOUT_REDIS = SCRAPED
#: Methods that change nothing: they need the scope `read`, and pages of other sites may use them.
READING = frozenset({"GET", "HEAD", "OPTIONS"})
