"""The package's public names, whatever was imported before."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import importlib, pkgutil, types
import proxygrad
{imports}
for name in proxygrad.__all__:
    assert not isinstance(getattr(proxygrad, name), types.ModuleType), name
"""

IMPORT_ALL = """
for module in pkgutil.iter_modules(proxygrad.__path__):
    importlib.import_module("proxygrad." + module.name)
"""


def test_public_names_are_no_modules_in_any_order() -> None:
    for imports in ("", IMPORT_ALL):
        subprocess.run([sys.executable, "-c", PROGRAM.format(imports=imports)], check=True)
