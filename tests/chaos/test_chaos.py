"""A short run of the chaos; `make chaos` is the long one."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="workers compute with torch")

from tests.chaos.plan import SHORT
from tests.chaos.run import chaos

pytestmark = pytest.mark.engine


def test_nothing_is_lost_and_nothing_is_done_twice() -> None:
    assert chaos(3, SHORT).mismatches == []
