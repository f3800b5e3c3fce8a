"""docs/configuration.md names every setting that the code reads, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from proxygrad.models.catalog import ModelEntry

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/configuration.md").read_text()
_READERS = ("proxygrad/paths.py", "proxygrad/client/config.py", "service/settings.py", "workers/settings.py")
SETTINGS = [ROOT / name for name in _READERS]


def _rows(heading: str) -> set[str]:
    """The names in the first column of the table whose head starts with `heading`."""
    _, _, table = PAGE.partition(f"| {heading} |")
    lines = [line for line in table.partition("\n\n")[0].splitlines() if line.startswith("| `")]
    return {name for line in lines for name in re.findall(r"`([^`]+)`", line.split("|")[1])}


def test_every_variable_that_is_read_is_documented_and_the_other_way_round() -> None:
    source = "".join(path.read_text() for path in SETTINGS)
    read = set(re.findall(r'"(PROXYGRAD_[A-Z_]+|REDIS_URL)"', source))
    assert read
    assert _rows("variable") == read


def test_no_other_module_reads_the_environment() -> None:
    sources = [path for room in ("proxygrad", "service", "workers") for path in (ROOT / room).rglob("*.py")]
    assert not [
        path for path in sources if re.search(r"os\.environ\[|os\.environ\.get|getenv\(", path.read_text())
    ]


def test_every_key_of_models_toml_is_documented_and_the_other_way_round() -> None:
    assert _rows("key") == set(ModelEntry.model_fields)
