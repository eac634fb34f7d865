"""From the bytes of a file to what it holds, found out in a sandbox, where it can do no harm."""

from __future__ import annotations

import json
import os
import threading

from framefleet.pipeline.errors import InputError
from framefleet.pipeline.guards.sandbox import Ended, Sandboxes
from framefleet.pipeline.model.specs.references import MediaKind
from framefleet.pipeline.rows.inputs.budget import DECODING
from framefleet.pipeline.rows.inputs.description_process import COST, REFUSAL
from framefleet.pipeline.rows.inputs.pictures import Described

MAX_DECODING_S = 600.0  # some ten times what the largest video takes that is allowed


class Describer:
    """Says what files hold, several at a time. For several threads."""

    def __init__(self) -> None:
        self._boxes = Sandboxes(
            "framefleet.pipeline.rows.inputs.description_process", max_silence_s=MAX_DECODING_S
        )
        self._cores = threading.Semaphore(os.cpu_count() or 1)

    def describe(self, content: bytes, kind: MediaKind) -> Described:
        """Return what the file holds, all of it decoded. Raises InputError."""
        try:
            with self._cores, self._boxes.one() as box:
                box.send(json.dumps({"kind": kind, "size": len(content)}).encode())
                box.send(content)
                answer = box.receive()
                if answer[:1] == COST:
                    with DECODING.take(int(answer[1:])):
                        box.send(b"go on")
                        answer = box.receive()
        except Ended as error:
            raise InputError(
                f"it cannot be read: {error}", "write it again, as png or as H.264 in mp4"
            ) from None
        found = json.loads(answer[1:])
        if answer[:1] == REFUSAL:
            raise InputError(*found)
        return Described(**found)

    def close(self) -> None:
        self._boxes.close()
