"""docs/configuration.md names every setting that the code reads, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxygrad.models.catalog import ModelEntry
from service.settings import ServiceSettings
from workers.settings import SharedSettings, WorkerSettings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/configuration.md").read_text()
#: What reads the environment but for the two models of settings.
CLIENT = ROOT / "proxygrad/client/config.py"
MODELS: dict[str, type[SharedSettings]] = {"gateway": ServiceSettings, "worker": WorkerSettings}
#: Defaults that depend on more than the field.
COMPUTED = {"PROXYGRAD_HOME", "PROXYGRAD_STORE", "PROXYGRAD_MODELS", "PROXYGRAD_MODEL_MEMORY_MB"}


def _table(heading: str) -> dict[str, list[str]]:
    """The cells of each row of the table whose head starts with `heading`, by the names in the first one."""
    _, _, table = PAGE.partition(f"| {heading} |")
    rows = [
        line.split("|")[1:-1] for line in table.partition("\n\n")[0].splitlines() if line.startswith("| `")
    ]
    return {name: [cell.strip() for cell in row] for row in rows for name in re.findall(r"`([^`]+)`", row[0])}


def _rows(heading: str) -> set[str]:
    return set(_table(heading))


def test_every_variable_that_is_read_is_documented_and_the_other_way_round() -> None:
    client = set(re.findall(r'"(PROXYGRAD_[A-Z_]+)"', CLIENT.read_text()))
    assert client
    assert _rows("variable") == client.union(*(model.variables() for model in MODELS.values()))


@pytest.mark.parametrize("process", MODELS)
def test_the_page_says_which_process_reads_a_variable(process: str) -> None:
    said = {name for name, row in _table("variable").items() if process in row[2].split(", ")}
    assert said | {"REDIS_URL", "PROXYGRAD_HOME", "PROXYGRAD_STORE"} == set(MODELS[process].variables())


@pytest.mark.parametrize("process", MODELS)
def test_the_defaults_are_those_of_the_code(process: str) -> None:
    table = _table("variable")
    for field in MODELS[process].model_fields.values():
        name, default = field.alias or "", field.default
        if name in COMPUTED:
            continue
        said = table[name][1].partition(":")[0].strip("`")
        unset = default in (None, (), "")
        assert said == (
            "unset" if unset else f"{default:g}" if isinstance(default, float) else str(default)
        ), name


@pytest.mark.parametrize("model", MODELS.values())
def test_every_setting_has_a_description(model: type[SharedSettings]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_no_other_module_reads_the_environment() -> None:
    sources = [path for room in ("proxygrad", "service", "workers") for path in (ROOT / room).rglob("*.py")]
    assert not [
        path for path in sources if re.search(r"os\.environ\[|os\.environ\.get|getenv\(", path.read_text())
    ]


def test_every_key_of_models_toml_is_documented_and_the_other_way_round() -> None:
    assert _rows("key") == set(ModelEntry.model_fields)
