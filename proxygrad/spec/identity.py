"""The canonical form of a request, and the id of its result: a hash of request, weights and method.

The same request for the same weights has the same id on any machine. Links, the store and Redis name a result
by it, so a change here gives every result another id.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel

from proxygrad.spec.models import ModelInfo

#: Fields that requests did not always have. At their default they are no part of the id, so that requests
#: from before keep theirs.
LATER_FIELDS = (
    *("images", "diversity", "compare"),
    *("gaf_alpha", "gaf_beta", "slope_hold", "slope_end_at"),
    *("sampler", "langevin", "starts", "trial_steps"),
)
#: Fields that the others spell out.
DERIVED_FIELDS = ("preset",)


def canonical(request: BaseModel) -> dict[str, Any]:
    """A completed request as JSON, without the preset, whose values stand in the other fields, and without
    the `LATER_FIELDS` that are not used.
    """
    fields = type(request).model_fields
    later = [name for name in LATER_FIELDS if name in fields]
    unused = {name for name in later if getattr(request, name) == fields[name].default}
    return request.model_dump(mode="json", exclude={*DERIVED_FIELDS, *unused})


def identity(resolved: BaseModel, model: ModelInfo, kind: str | None = None) -> str:
    """The id of the result of a resolved request: 32 hex digits, of a SHA-256.

    ``kind``: that of the job; None: a visualization, whose id names none.
    """
    content: dict[str, Any] = {
        "spec": canonical(resolved),
        "digest": model.digest,
        "engine_version": model.engine_version,
    }
    if kind is not None:
        content["kind"] = kind
    langevin = getattr(resolved, "langevin", None)
    if langevin is not None and langevin.discriminator_weight:
        content["discriminator"] = model.discriminator
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
