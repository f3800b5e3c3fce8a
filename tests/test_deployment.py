"""What `deploy/` has for systemd: valid units, and settings that exist and go together."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from service.settings import ServiceSettings
from workers.settings import WorkerSettings

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy/systemd"
UNITS = sorted(FOLDER.glob("proxygrad*"))
ENVIRONMENT = dict(
    line.split("=", 1) for line in (FOLDER / "env").read_text().splitlines() if not line.startswith("#")
)
#: Variables that are not ours.
FOREIGN = {"TORCH_HOME", "HF_HOME"}


def unit(name: str) -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.read(FOLDER / name)
    return parser


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_is_valid(path: Path, tmp_path: Path) -> None:
    """As far as it can be said without the user and the folder that the guide makes."""
    for each in UNITS:
        text = each.read_text().replace(
            "/opt/proxygrad/.venv/bin/python", str(Path(sys.executable).resolve())
        )
        text = re.sub(r"^(User|Group)=.*", r"\1=root", text, flags=re.M).replace("/opt/proxygrad", "/tmp")
        (tmp_path / each.name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / path.name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if path.name in line]
    assert (done.returncode, said) == (0, []), done.stderr


def test_the_environment_can_be_used_by_both() -> None:
    for settings in (ServiceSettings, WorkerSettings):
        environ = {**ENVIRONMENT, "PROXYGRAD_HOME": "/var/lib/proxygrad", "PROXYGRAD_MODELS": __file__}
        assert settings.from_env(environ).redis_url == ENVIRONMENT["REDIS_URL"]


def test_every_variable_is_one_that_is_read() -> None:
    named = {name for path in UNITS for name in re.findall(r"\b([A-Z_]+)=\S", path.read_text())}
    known = ServiceSettings.variables() | WorkerSettings.variables()
    assert {name for name in (*named, *ENVIRONMENT) if "_" in name} - FOREIGN <= known


def test_systemd_waits_longer_than_a_worker_drains() -> None:
    stop_s = int(unit("proxygrad-worker@.service")["Service"]["TimeoutStopSec"])
    assert stop_s > WorkerSettings.model_fields["grace_s"].default + 5


@pytest.mark.parametrize("name", [path.name for path in UNITS if path.suffix == ".service"])
def test_each_unit_belongs_to_the_target_and_is_for_its_user_alone(name: str) -> None:
    found = unit(name)
    assert found["Unit"]["PartOf"] == found["Install"]["WantedBy"] == "proxygrad.target"
    assert (found["Service"]["UMask"], found["Service"]["StateDirectoryMode"]) == ("0077", "0700")
    assert found["Service"]["User"] == "proxygrad"
