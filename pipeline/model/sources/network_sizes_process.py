"""The sandbox that builds networks without weights. In: a class and its config. Out: why it is too large."""

from __future__ import annotations

import json
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from framefleet.pipeline.guards.sandbox import bound_memory, serve
from framefleet.pipeline.model.sources.components import class_of

_MAX_BYTES = 4 << 30  # beyond what libraries take: of lists and of NumPy's arrays


def main() -> None:
    serve(_answer)


def _answer(connection: Connection) -> None:
    asked = json.loads(connection.recv_bytes())
    class_of(*asked[:2])  # imported before memory is bounded
    bound_memory(_MAX_BYTES)
    connection.send_bytes(json.dumps(said_against(*asked)).encode())


def said_against(library: str, class_name: str, config: Mapping[str, Any], most: int) -> str | None:
    """Return why a network is too large: a tensor, or all of them, take more than `most` bytes.

    None where it is not, or where it cannot be built: whoever loads it says so, in the library's words.
    """
    try:
        _build(library, class_name, config, most)
    except MemoryError as error:
        return str(error) or f"takes more than {_MAX_BYTES >> 30} GiB"
    except Exception:
        pass
    return None


def _build(library: str, class_name: str, config: Mapping[str, Any], most: int) -> None:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from framefleet.pipeline.model.sources.sealed import bounded

    class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch is typed in part
        """Looks at what each operation returns: tables are not always buffers."""

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = function(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor):
                _check(made.untyped_storage().nbytes(), most)
            return made

    found = class_of(library, class_name)
    with bounded(Path(class_name)), torch.device("meta"), Counting():  # type: ignore[no-untyped-call]
        if hasattr(found, "from_config"):  # of diffusers
            network = found.from_config(config)
        else:
            network = found(found.config_class.from_dict(config))
    _check(sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers())), most)


def _check(size: int, most: int) -> None:
    if size > most:
        raise MemoryError(f"takes at least {size:,} bytes")


if __name__ == "__main__":
    main()
