"""Makes ``import torchvision`` work beside a CPU build of torch.

PyPI's Linux wheels of torchvision are built for CUDA. Beside a CPU build of torch their compiled operators
do not load, and the import then fails where torchvision registers its shape functions: ``operator
torchvision::nms does not exist``. Models and transforms need none of those operators, so it is enough to
declare the two that are looked up at import. Where the import works by itself nothing is declared.
"""

from __future__ import annotations

import importlib
import sys
import threading
from types import ModuleType

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

#: Declarations live as long as their library object.
_declarations: list[torch.library.Library] = []
#: Of two threads one would forget what the other has half imported.
_importing = threading.Lock()


def import_torchvision() -> ModuleType:
    """The torchvision module, imported; declares its missing operators first where that is needed.

    Raises `ImportError` when torchvision is absent or cannot be loaded for another reason.
    """
    with _importing:
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise ImportError(f"torchvision cannot be loaded: {error}") from error
        _forget_half_imported()
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(operator + _SCHEMA)
        _declarations.append(library)
        return importlib.import_module("torchvision")


def _forget_half_imported() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
