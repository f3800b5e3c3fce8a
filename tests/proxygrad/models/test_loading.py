"""`proxygrad.load`: the bundled model, the user's, and the names of others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from proxygrad.errors import InvalidRequest, UnknownModel
from proxygrad.models.loading import load


def test_the_bundled_model_needs_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROXYGRAD_HOME", str(tmp_path))
    monkeypatch.delenv("PROXYGRAD_MODELS", raising=False)
    assert load("digits").classes == tuple("0123456789")
    with pytest.raises(UnknownModel, match="unknown model 'digit'; near names: digits"):
        load("digit")
    with pytest.raises(InvalidRequest, match=r"is of type Identity; valid: a name, as 'digits'"):
        load(torch.nn.Identity())  # type: ignore[arg-type]


def test_the_users_models_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = '[models.own]\nbuilder = "proxygrad.models.digits:digits"\ninput_shape = [1, 32, 32]\n'
    (tmp_path / "models.toml").write_text(own)
    assert load("own", models=tmp_path / "models.toml").name == "own"
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["model own"] * 2
    assert "model own: no class names" in caplog.text
    monkeypatch.setenv("PROXYGRAD_HOME", str(tmp_path))
    monkeypatch.delenv("PROXYGRAD_MODELS", raising=False)
    assert load("own").input_shape == (1, 32, 32)
