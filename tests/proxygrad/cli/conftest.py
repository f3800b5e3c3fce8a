"""The gateway that `submit` and `batch` talk to."""

from __future__ import annotations

from tests.service.conftest import app, http, info, patience, player, served, settings

__all__ = ["app", "http", "info", "patience", "player", "served", "settings"]
