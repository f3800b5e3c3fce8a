"""Settings come from a mapping and are checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.errors import SettingsError
from workers.settings import WorkerSettings


def test_nothing_set_gives_the_documented_defaults() -> None:
    settings = WorkerSettings.from_env({"HOME": "/home/ada"})
    home = Path("/home/ada/.local/share/proxygrad")
    assert settings == WorkerSettings(
        home=home,
        redis_url=None,
        store_url=f"file://{home}/artifacts",
        models_path=None,
        slots=8,
        device="auto",
    )


def test_every_variable_is_read(tmp_path: Path) -> None:
    models = tmp_path / "my.toml"
    models.write_text("")
    environ = {
        "PROXYGRAD_HOME": str(tmp_path),
        "REDIS_URL": "rediss://queue:6379/1",
        "PROXYGRAD_STORE": "s3://bucket/prefix",
        "PROXYGRAD_MODELS": str(models),
        "PROXYGRAD_SLOTS": "3",
        "PROXYGRAD_DEVICE": "cuda:1",
        "PROXYGRAD_PRECISION": "tf32",
        "PROXYGRAD_MODEL_MEMORY_MB": "2000",
        "PROXYGRAD_KEEP_DAYS": "30",
        "PROXYGRAD_KEEP_GB": "0.5",
    }
    assert WorkerSettings.from_env(environ) == WorkerSettings(
        home=tmp_path,
        redis_url="rediss://queue:6379/1",
        store_url="s3://bucket/prefix",
        models_path=models,
        slots=3,
        device="cuda:1",
        precision="tf32",
        model_memory_mb=2000,
        keep_days=30.0,
        keep_gb=0.5,
    )


def test_empty_variables_count_as_not_set(tmp_path: Path) -> None:
    names = (
        *("REDIS_URL", "PROXYGRAD_STORE", "PROXYGRAD_MODELS", "PROXYGRAD_SLOTS", "PROXYGRAD_DEVICE"),
        *("PROXYGRAD_PRECISION", "PROXYGRAD_MODEL_MEMORY_MB", "PROXYGRAD_KEEP_DAYS", "PROXYGRAD_KEEP_GB"),
        *("PROXYGRAD_THREADS", "PROXYGRAD_STALL_S", "PROXYGRAD_GRACE_S"),
    )
    only_home = {"PROXYGRAD_HOME": str(tmp_path)}
    assert WorkerSettings.from_env(only_home | dict.fromkeys(names, "")) == WorkerSettings.from_env(only_home)


def test_a_models_file_in_the_home_is_found(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text("")
    assert WorkerSettings.from_env({"PROXYGRAD_HOME": str(tmp_path)}).models_path == tmp_path / "models.toml"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PROXYGRAD_SLOTS", "many", "PROXYGRAD_SLOTS is 'many'; valid: a whole number"),
        ("PROXYGRAD_SLOTS", "0", "PROXYGRAD_SLOTS is 0; valid: 1 to 256"),
        ("PROXYGRAD_DEVICE", "gpu", "PROXYGRAD_DEVICE is 'gpu'; valid: auto, cpu, cuda"),
        (
            "PROXYGRAD_PRECISION",
            "fp16",
            "PROXYGRAD_PRECISION is 'fp16'; valid: auto, float32, tf32, bfloat16",
        ),
        ("PROXYGRAD_MODEL_MEMORY_MB", "0", "PROXYGRAD_MODEL_MEMORY_MB is 0; valid: 1 or more"),
        ("PROXYGRAD_MODEL_MEMORY_MB", "1 GB", "PROXYGRAD_MODEL_MEMORY_MB is '1 GB'; valid: a whole number"),
        ("PROXYGRAD_KEEP_DAYS", "week", "PROXYGRAD_KEEP_DAYS is 'week'; valid: a number, or unset"),
        ("PROXYGRAD_KEEP_GB", "-1", "PROXYGRAD_KEEP_GB is -1; valid: 0 or more, or unset"),
        ("PROXYGRAD_KEEP_GB", "nan", "PROXYGRAD_KEEP_GB is nan; valid: 0 or more, or unset"),
        ("PROXYGRAD_THREADS", "0", "PROXYGRAD_THREADS is 0; valid: 1 to 1024"),
        ("PROXYGRAD_STALL_S", "5", "PROXYGRAD_STALL_S is 5; valid: 6 to 3600"),
        ("PROXYGRAD_STALL_S", "a minute", "PROXYGRAD_STALL_S is 'a minute'; valid: a number of seconds"),
        ("PROXYGRAD_GRACE_S", "nan", "PROXYGRAD_GRACE_S is nan; valid: 0 to 3600"),
        ("REDIS_URL", "localhost:6379", "REDIS_URL is 'localhost:6379'; valid: redis://"),
        ("PROXYGRAD_MODELS", "/nowhere/models.toml", "there is no file /nowhere/models.toml"),
    ],
)
def test_a_bad_value_is_named_with_the_valid_ones(name: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        WorkerSettings.from_env({"HOME": "/home/ada", name: value})
    assert said in str(caught.value)
