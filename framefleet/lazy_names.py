"""Names that a module has from others, imported when first used, so that `import framefleet` is quick."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module


def lazy_names(module: str) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` for what a module imports below `if TYPE_CHECKING:`."""
    home_of = homes(module)

    def find(name: str) -> object:
        if name not in home_of:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(import_module(home_of[name]), name)

    names = sorted(home_of)
    return find, lambda: sorted({*vars(sys.modules[module]), *names}), names


@cache
def homes(module: str) -> Mapping[str, str]:
    """Return these names, each with the module that defines it."""
    spec = sys.modules[module].__spec__
    source = spec.loader.get_source(module)  # type: ignore[union-attr]  # a file has both
    blocks = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    imports = (node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom))
    return {alias.name: node.module or "" for node in imports for alias in node.names}
