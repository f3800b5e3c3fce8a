"""Writes `docs/openapi.json`, what this version of the service says of itself: ``python tools/openapi.py``.

Neither Redis nor torch is needed. The document is that of a running gateway's `/openapi.json`.
"""

from __future__ import annotations

import json
from pathlib import Path

from service.app import routed

PATH = Path(__file__).resolve().parents[1] / "docs/openapi.json"


def text() -> str:
    """The document as the file holds it: the same on every machine."""
    return json.dumps(routed().openapi(), indent=1, ensure_ascii=False, sort_keys=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
