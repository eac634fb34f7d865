"""What stands for the harmless classes that trainers leave in checkpoints besides the tensors.

A pickle names classes and functions, and opening it calls them. torch calls only what it knows, and what is
here in place of the named, which takes whatever it is given and does nothing. So nothing is imported, and no
code of the file or of a library runs. Everything else that a pickle names is refused.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any


class Unneeded:
    """Stands for an object whose values nothing here needs."""

    def __init__(self, *_arguments: Any) -> None: ...

    def __setstate__(self, _state: Any) -> None: ...


class Keyed:
    """Stands for a kind of dictionary. torch puts what it holds into its own kinds alone."""

    def __new__(cls, *_arguments: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


_KEYED = (
    "collections.defaultdict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)
_UNNEEDED = (
    "argparse.Namespace",
    "builtins.bool",
    "builtins.dict",
    "builtins.float",
    "builtins.int",
    "builtins.list",
    "builtins.str",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "typing.Any",
)
# As torch.serialization.safe_globals takes them.
STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((Keyed, name) for name in _KEYED),
    *((Unneeded, name) for name in _UNNEEDED),
]
