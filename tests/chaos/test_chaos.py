"""A short run of the chaos, and one of 200 jobs in `make soak`; `make chaos` is the long one."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="workers compute with torch")

from tests.chaos.plan import SHORT, SOAK, Scale
from tests.chaos.run import chaos

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("scale", [SHORT, pytest.param(SOAK, marks=pytest.mark.soak)], ids=["short", "soak"])
def test_nothing_is_lost_and_nothing_is_done_twice(scale: Scale) -> None:
    assert chaos(3, scale).mismatches == []
