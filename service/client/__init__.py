"""A client of the service: ask, follow, fetch. `Client` blocks; `AsyncClient` has the same names.

::

    with Client() as client:
        picture = client.visualize(model="digits", layer="layer3", unit=7).wait(progress=True).image()

What is sent, read, repeated and followed is written once, as coroutines against a wire (`wires`), of which
there is one for each kind of client; `blocking` and `asynchronous` are what callers see of them.
"""

from service.client._async.client import AsyncBatch, AsyncClient, AsyncVisualization
from service.client._async.events import Event, PreviewEvent, ProgressEvent, StateEvent
from service.client._sync.client import Batch, Client, Visualization
from service.client.config import InsecureKeyWarning
from service.client.errors import (
    BadAddress,
    BadValue,
    Canceled,
    CannotSave,
    Conflict,
    Failed,
    Forbidden,
    Invalid,
    NotFound,
    QueueFull,
    RateLimited,
    Refused,
    ServiceError,
    ServiceUnreachable,
    StillRunning,
    Unauthorized,
    Unavailable,
    Unsuccessful,
    Unusable,
)
from service.client.files import AtlasFormat, ImageFormat
from service.client.progress import Bar
from service.client.questions import Question, TemplateFields

__all__ = [
    "AsyncBatch",
    "AsyncClient",
    "AsyncVisualization",
    "AtlasFormat",
    "BadAddress",
    "BadValue",
    "Bar",
    "Batch",
    "Canceled",
    "CannotSave",
    "Client",
    "Conflict",
    "Event",
    "Failed",
    "Forbidden",
    "ImageFormat",
    "InsecureKeyWarning",
    "Invalid",
    "NotFound",
    "PreviewEvent",
    "ProgressEvent",
    "Question",
    "QueueFull",
    "RateLimited",
    "Refused",
    "ServiceError",
    "ServiceUnreachable",
    "StateEvent",
    "StillRunning",
    "TemplateFields",
    "Unauthorized",
    "Unavailable",
    "Unsuccessful",
    "Unusable",
    "Visualization",
]
