"""A client of the service: request visualizations, follow them, fetch the images.

::

    with Client() as client:
        image = client.visualize(model="digits", layer="layer3", unit=7).wait(progress=True).image()

`AsyncClient` has the same methods, to be awaited. `_async` is written by hand; `_sync` is generated from it.
May import `proxygrad.protocol`, `proxygrad.spec` and `proxygrad.errors`. Read `_async.client` first.
"""

from proxygrad.client._async.attributions import AsyncAttribution
from proxygrad.client._async.batches import AsyncBatch
from proxygrad.client._async.client import AsyncClient
from proxygrad.client._async.visualizations import AsyncVisualization
from proxygrad.client._sync.attributions import Attribution
from proxygrad.client._sync.batches import Batch
from proxygrad.client._sync.client import Client
from proxygrad.client._sync.visualizations import Visualization
from proxygrad.client.config import InsecureKeyWarning
from proxygrad.client.errors import (
    BadAddress,
    Canceled,
    ClientClosed,
    Conflict,
    Failed,
    Forbidden,
    Invalid,
    InvalidArgument,
    NotFound,
    QueueFull,
    RateLimited,
    Refused,
    SaveError,
    ServiceError,
    ServiceUnreachable,
    StillRunning,
    Unauthorized,
    Unavailable,
    Unsuccessful,
)
from proxygrad.client.files import AtlasFormat, ImageFormat
from proxygrad.client.parameters import TemplateParameters, VisualizationParameters
from proxygrad.client.progress import ProgressBar
from proxygrad.protocol.events import Event, PreviewEvent, ProgressEvent, StateEvent

__all__ = [
    "AsyncAttribution",
    "AsyncBatch",
    "AsyncClient",
    "AsyncVisualization",
    "AtlasFormat",
    "Attribution",
    "BadAddress",
    "Batch",
    "Canceled",
    "Client",
    "ClientClosed",
    "Conflict",
    "Event",
    "Failed",
    "Forbidden",
    "ImageFormat",
    "InsecureKeyWarning",
    "Invalid",
    "InvalidArgument",
    "NotFound",
    "PreviewEvent",
    "ProgressBar",
    "ProgressEvent",
    "QueueFull",
    "RateLimited",
    "Refused",
    "SaveError",
    "ServiceError",
    "ServiceUnreachable",
    "StateEvent",
    "StillRunning",
    "TemplateParameters",
    "Unauthorized",
    "Unavailable",
    "Unsuccessful",
    "Visualization",
    "VisualizationParameters",
]
