"""The request and its result as plain data, shared by library, queue and HTTP. Needs pydantic alone.

May import `proxygrad.errors` and `proxygrad.version`. Read `visualization` first.
"""

from proxygrad.spec.models import OBJECTIVES, LayerInfo, LayerKind, ModelInfo, ObjectiveKind, Stage
from proxygrad.spec.results import (
    BaselineResult,
    ClassProbability,
    ImageResult,
    Measured,
    Result,
    RobustActivation,
    Role,
)
from proxygrad.spec.visualization import Spec, StoredSpec, VisualizationTemplate

__all__ = [
    "OBJECTIVES",
    "BaselineResult",
    "ClassProbability",
    "ImageResult",
    "LayerInfo",
    "LayerKind",
    "Measured",
    "ModelInfo",
    "ObjectiveKind",
    "Result",
    "RobustActivation",
    "Role",
    "Spec",
    "Stage",
    "StoredSpec",
    "VisualizationTemplate",
]
