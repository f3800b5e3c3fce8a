"""Ids as requests name them: of visualizations, batches and deliveries alike."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import StringConstraints

from proxygrad.protocol.base import ID_PATTERN

#: In a path.
PathId = Annotated[
    str, Path(pattern=ID_PATTERN, description="32 hex digits.", examples=["5f0c6a4b7d8e9f00112233445566778a"])
]
#: Among the values of a filter.
FilterId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
