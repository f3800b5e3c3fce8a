"""Example request bodies, and the OpenAPI request bodies that show them.

The routes read their bodies themselves, so that what is not JSON, too large or of another type gets its own
problem, and types are as strict as the schema says.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from proxygrad.protocol.requests import BatchRequest, VisualizationRequest

VISUALIZATIONS: dict[str, Any] = {
    "smallest": {
        "summary": "The smallest request",
        "value": {"model": "digits", "layer": "layer3", "unit": 7},
    },
    "settings": {
        "summary": "With settings",
        "value": {"model": "digits", "layer": "layer3", "unit": 7, "slope": 0.05, "steps": 64, "seed": 1},
    },
    "urgency": {
        "summary": "Low priority, with a deadline of two minutes",
        "value": {"model": "digits", "layer": "layer3", "unit": 7, "priority": "batch", "deadline_s": 120},
    },
    "webhook": {
        "summary": "With a webhook",
        "value": {
            "model": "digits",
            "layer": "layer3",
            "unit": 7,
            "webhook": "https://hooks.example.org/proxygrad",
        },
    },
    "several": {
        "summary": "Four diverse images, compared with plain activation maximization",
        "value": {
            "model": "digits",
            "layer": "layer3",
            "unit": 7,
            "images": 4,
            "diversity": 0.5,
            "compare": True,
        },
    },
    "plain": {
        "summary": "Plain activation maximization",
        "value": {"model": "digits", "layer": "layer3", "unit": 7, "slope": 0},
    },
}

BATCHES: dict[str, Any] = {
    "layer": {"summary": "Every unit of a layer", "value": {"model": "digits", "layer": "layer3"}},
    "range": {
        "summary": "Every other unit of the first 32, with settings",
        "value": {
            "model": "digits",
            "layer": "layer3",
            "units": {"start": 0, "stop": 32, "step": 2},
            "steps": 64,
        },
    },
    "list": {"summary": "Three units", "value": {"model": "digits", "layer": "layer3", "units": [3, 5, 8]}},
}


def request_body(model: type[BaseModel], examples: dict[str, Any]) -> dict[str, Any]:
    """The entry of an OpenAPI operation for a JSON body."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    content = {"application/json": {"schema": schema, "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}


VISUALIZATION_BODY = request_body(VisualizationRequest, VISUALIZATIONS)
BATCH_BODY = request_body(BatchRequest, BATCHES)
