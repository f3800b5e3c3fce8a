"""Questions as records have them. One is read each time that its job is looked at, and never changes."""

from __future__ import annotations

from pydantic import TypeAdapter

from proxygrad.spec import Spec, StoredSpec
from workers.cache import LRUCache

#: One takes 3.5 KB.
MOST_KEPT = 1024

_TOLD: TypeAdapter[Spec] = TypeAdapter(StoredSpec)
_kept: LRUCache[str, Spec] = LRUCache(MOST_KEPT)


def to_text(spec: Spec) -> str:
    """The question as JSON."""
    text = spec.model_dump_json()
    _kept.put(text, spec)
    return text


def from_text(text: str) -> Spec:
    """The question in a record, perhaps one of a newer version. Raises `ValidationError`."""
    spec = _kept.get(text)
    if spec is None:
        spec = _TOLD.validate_json(text)
        _kept.put(text, spec)
    return spec
