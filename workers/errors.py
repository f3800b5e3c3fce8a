"""What the queue's side raises on purpose, below `proxygrad.errors.ProxyGradError`.

::

    ProxyGradError
    ├── SettingsError        an environment variable, or what it points at, cannot be used
    ├── StorageError         the artefact store cannot be read or written
    ├── QueueUnavailable     Redis does not answer
    └── LeaseLost            this run of a job may no longer speak for it; somebody else does, or nobody
        └── GivenBack        its worker stops, and has put the job back into the queue
"""

from __future__ import annotations

from proxygrad.errors import ProxyGradError


class SettingsError(ProxyGradError):
    """An environment variable, or what it points at, cannot be used. Names the variable."""

    code = "settings_invalid"


class StorageError(ProxyGradError):
    """The artefact store cannot be read or written. Names the place."""

    code = "storage_unavailable"


class QueueUnavailable(ProxyGradError):
    """Redis does not answer. Names its URL, without the password."""

    code = "queue_unavailable"


class LeaseLost(ProxyGradError):
    """This run of a job may no longer speak for it: what it would record is dropped."""

    code = "lease_lost"


class GivenBack(LeaseLost):
    """The worker stops and has put the job back into the queue."""

    code = "given_back"
