"""Load the tensors of a watermark's weights, which are untrusted pickles, if they are those of the job.

The bytes that were hashed are loaded. A separate process with limited memory opens the pickles and returns
safetensors, so that a flaw in the reader can only end that process.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from framefleet.api.errors import ModelError
from framefleet.pipeline.guards.sandbox import Ended, Sandboxes, bound_memory, serve
from framefleet.plugins.marks.settings import Watermark, joint_digest, weight_file_digests

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = Mapping[str, Tensor]

# Memory for the file, its unpacked content, a copy without shared tensors, and the safetensors.
_TIMES_STORED, _MORE_BYTES = 4, 1 << 30
_MAX_SILENCE_S = 180.0  # importing torch takes most of it
_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", re.ASCII)
_WRAPPED = ("model", "state_dict")  # keys of weights in checkpoints


def read_weights(watermark: Watermark, names: Sequence[str] = ("",)) -> list[Tensors]:
    """Return the tensors of the files with these names in a folder, or of the single file.

    Raises ModelError if they are not those of the job, or contain more than tensors.
    """
    digests = weight_file_digests(watermark)
    if watermark.digest not in (None, joint_digest(digests)):
        problem = f"marks.watermark: the weights at {watermark.weights} are not those of the job"
        raise ModelError(problem, "put the same file there, on every machine")
    # Close it afterwards, as it has imported torch.
    with closing(Sandboxes(__name__, max_silence_s=_MAX_SILENCE_S)) as boxes:
        return [_read(watermark, name, digests, boxes) for name in names]


def not_weights(watermark: Watermark, reason: str) -> ModelError:
    return ModelError(
        f"marks.watermark: {watermark.weights} has no valid weights of {watermark.name}: {reason[:300]}",
        "use the files that its authors publish, with their names",
    )


def _read(watermark: Watermark, name: str, digests: Mapping[str, str], boxes: Sandboxes) -> Tensors:
    from safetensors.torch import load

    if name not in digests:
        raise not_weights(watermark, f"{name or 'the file'} is missing")
    content = Path(watermark.weights or "", name).read_bytes()
    if hashlib.sha256(content).hexdigest() != digests[name]:
        raise not_weights(watermark, f"{name or 'it'} was changed while it was read")
    try:
        with boxes.one() as box:
            box.send(content)
            problem: str | None = json.loads(box.receive())
            if problem is None:
                return load(box.receive())
    except Ended as error:
        problem = f"it cannot be read: {error}"
    raise not_weights(watermark, f"{name}: {problem}" if name else problem)


def main() -> None:
    import safetensors.torch
    import torch  # both before memory is limited

    assert torch and safetensors.torch
    serve(_answer)


def _answer(connection: Connection) -> None:
    """Receive a checkpoint; send a problem or None, and then its tensors."""
    content = connection.recv_bytes()
    bound_memory(_TIMES_STORED * len(content) + _MORE_BYTES)
    try:
        import torch
        from safetensors.torch import save

        checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if not isinstance(checkpoint, dict):
            raise TypeError
        weights = next(
            (checkpoint[key] for key in _WRAPPED if isinstance(checkpoint.get(key), dict)), checkpoint
        )
        tensors = {name: value for name, value in weights.items() if isinstance(value, torch.Tensor)}
        # Libraries resolve dotted names attribute by attribute.
        if any(not isinstance(name, str) or not _NAME.fullmatch(name) or "__" in name for name in tensors):
            raise ValueError
        stored = save({name: value.detach().clone().contiguous() for name, value in tensors.items()})
    except MemoryError:
        problem = "it unpacks to more memory than its size allows"
    except Exception as error:  # pickle and zipfile raise almost any class for broken files
        problem = f"it is damaged, or contains more than tensors ({type(error).__name__})"
    else:
        connection.send_bytes(b"null")
        connection.send_bytes(stored)
        return
    connection.send_bytes(json.dumps(problem).encode())


if __name__ == "__main__":
    main()
