"""From a request's arguments, which are JSON values, to the arguments that its recipe is called with.

Images become PIL images, videos lists of them, and references objects of the pipeline's own classes. Files
are read before rows start, so that rendering does not wait for the network.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from framefleet.pipeline.errors import InputError
from framefleet.pipeline.model.specs.signature import PictureMode
from framefleet.pipeline.request import is_input
from framefleet.pipeline.rows.inputs.access import naming
from framefleet.pipeline.rows.inputs.fit import fit_opened
from framefleet.pipeline.rows.inputs.pictures import open_image, open_video
from framefleet.pipeline.rows.inputs.roots import MAX_BYTES
from framefleet.pipeline.rows.inputs.video_frames import MAX_DECODED_FRAMES

# Reads wait for servers, not for this machine, and one silent server must not block all reads.
_NUM_THREADS = 16
# Enough for the images of two leases, but only for a few videos, such as those of a robot's three cameras:
# others are read when they are needed.
MAX_READ_BYTES = 3 * MAX_BYTES


def open_arguments(
    arguments: Mapping[str, Any],
    read: Callable[[str], bytes],
    *,
    max_frames: int | None = None,
    mode: PictureMode = "RGB",
    references: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the arguments with every image and video opened, and fitted to the size as the row says.

    read: returns the bytes at a path or URL. max_frames: how many frames of a video are needed, from the
    first. mode: of images. references: see `references_of`. Raises InputError if a file has changed since it
    was checked.
    """

    def opened(name: str, value: Any) -> Any:
        if isinstance(value, list):  # a new one: a pipeline may change it
            return [opened(name, part) for part in value]
        if not is_input(value):
            return value
        with naming(name, value["uri"]):
            content = checked_content(value, read)
            if "kind" in value:  # a reference, which the pipeline's own class opens
                kind, classes = value["kind"], (references or {}).get(name, {})
                if kind not in classes:
                    fix = f"use one of {', '.join(classes)}" if classes else "leave it out"
                    raise InputError(f"this model takes no {kind} there", fix)
                # Without an extension: FFmpeg could then take it for another format than in the sandbox.
                with tempfile.NamedTemporaryFile() as file:
                    file.write(content)
                    file.flush()
                    return classes[kind].from_file(file.name)
            if "num_frames" in value:
                most = min(value["num_frames"], max_frames or MAX_DECODED_FRAMES)
                return open_video(content, max_frames=most, first=value.get("first_frame", 0))
            return open_image(content, mode=mode)

    values = {name: opened(name, value) for name, value in arguments.items()}
    fit_opened(arguments, values)
    return values


def checked_content(value: Mapping[str, Any], read: Callable[[str], bytes]) -> bytes:
    """Return the bytes of an input. Raises InputError if they have changed since they were checked."""
    content = read(value["uri"])
    if hashlib.sha256(content).hexdigest() != value["sha256"]:
        problem = "the file has changed since the row was checked"
        raise InputError(problem, "restore the old file, or run the same command again to use the new one")
    return content


class ReadAhead:
    """Caches files up to a number of bytes; the least recently used go first. Threads may share it."""

    def __init__(self, read: Callable[[str], bytes], *, max_bytes: int = MAX_READ_BYTES) -> None:
        self._read = read
        self._max_bytes = max_bytes
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="read")
        self._lock = threading.Lock()  # of `_reads`
        self._reads: OrderedDict[str, Future[bytes]] = OrderedDict()
        self._num_bytes = 0  # of reads that are done

    def start(self, uri: str) -> Future[bytes] | None:
        """Start to read, and return the future; None if the cache is full."""
        with self._lock:
            if uri not in self._reads and self._num_bytes < self._max_bytes:
                self._reads[uri] = self._threads.submit(self._read_one, uri)
            return self._reads.get(uri)

    def _read_one(self, uri: str) -> bytes:
        try:
            content = self._read(uri)
        except BaseException:
            with self._lock:
                del self._reads[uri]
            raise
        with self._lock:
            self._num_bytes += len(content)
        return content

    def read(self, uri: str) -> bytes:
        """Return the bytes at `uri`, or raise what reading them raised. A failed read is not cached."""
        with self._lock:
            future = self._reads.get(uri)
        try:
            return future.result() if future else self._read(uri)
        finally:
            with self._lock:
                if uri in self._reads:
                    self._reads.move_to_end(uri)
                done = (address for address, one in self._reads.items() if one.done())
                while self._num_bytes > self._max_bytes and (oldest := next(done, None)) is not None:
                    self._num_bytes -= len(self._reads[oldest].result())
                    del self._reads[oldest]
                    done = (address for address, one in self._reads.items() if one.done())
