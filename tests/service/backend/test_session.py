"""The session of a caller is immutable, and nothing of it blocks the event loop."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError

import pytest
from fastapi import FastAPI

from service.auth.callers import ANYBODY
from service.backend.resources.session import JobSession
from service.backend.session import CallerSession


def test_every_public_method_is_asynchronous() -> None:
    methods = {
        name: inspect.unwrap(value.__func__ if isinstance(value, classmethod) else value)
        for name, value in (vars(CallerSession) | vars(JobSession)).items()
        if not name.startswith("_") and (callable(value) or isinstance(value, classmethod))
    }
    assert {"submit", "job", "cancel", "batch", "delivery"} <= methods.keys()
    assert [name for name, method in methods.items() if not inspect.iscoroutinefunction(method)] == []


def test_it_does_not_change(app: FastAPI) -> None:
    session = CallerSession(app.state.backend, ANYBODY)
    with pytest.raises(FrozenInstanceError):
        session.caller = ANYBODY  # type: ignore[misc]
