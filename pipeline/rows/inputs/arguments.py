"""From a request's arguments, which are JSON values, to those that its recipe is called with.

Images become PIL images, videos lists of them, references objects of the pipeline's own classes. Files are
read before rows start, so that rendering does not wait for the network.

What a file holds, which may come from anywhere, is found out in a sandbox, which runs this file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

from PIL import Image, ImageOps

from framefleet.pipeline.errors import InputError
from framefleet.pipeline.guards.sandbox import Ended, Sandboxes, bound_memory, serve
from framefleet.pipeline.model.specs.signature import MediaKind, PictureMode
from framefleet.pipeline.request import is_input
from framefleet.pipeline.rows.inputs import video_frames
from framefleet.pipeline.rows.inputs.access import naming
from framefleet.pipeline.rows.inputs.video_frames import MAX_DECODED_FRAMES

# Others run programs (eps), are rarely what people mean (psd, ico) or read by few (avif).
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MAX_IMAGE_PIXELS = 1 << 26  # 8192 x 8192, 200 MB; Pillow itself warns from 89 million on
BYTES_PER_PIXEL = 16  # of WebP: libwebp's two canvases, its copy of them, and the picture
DEEP_MODES = ("I", "F")  # `convert` cuts their values off at 255 instead of scaling them


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What a file holds: the size of its pictures when upright, and their number (1 for an image).

    Of sound, width and height are 0, and num_frames is the number of samples.
    """

    sha256: str
    width: int
    height: int
    num_frames: int


def open_image(content: bytes, *, mode: PictureMode = "RGB") -> Image.Image:
    """Return the RGB image that `diffusers.utils.load_image` makes of the same file, pixel by pixel.

    So it is upright by its EXIF orientation, transparency and colour profile are dropped and not blended, and
    an animation is its first frame. mode: RGBA keeps transparency. Raises InputError.
    """
    with _opened(content) as image, video_frames.DECODING.take(_decoding_bytes(image)):
        ImageOps.exif_transpose(image, in_place=True)  # or else it is in memory once more
        return image.convert(mode)


def open_video(content: bytes, *, max_frames: int) -> list[Image.Image]:
    """Return the first frames, all RGB and of one size. Raises InputError, not for damage after them."""
    video_frames.checked_kind(content, "video")
    with closing(video_frames.frames_of(content)) as frames:
        return list(islice(frames, max_frames))


def describe(content: bytes, kind: MediaKind) -> Described:
    """Return what the file holds, all of it decoded: what passes here will open in another process."""
    if kind == "image":
        size, num_frames = open_image(content).size, 1
    elif kind == "audio":
        size, num_frames = (0, 0), video_frames.num_samples(content)
    else:
        video_frames.checked_kind(content, "video")
        num_frames = 0
        with closing(video_frames.frames_of(content)) as frames:
            for frame in frames:
                size = frame.size
                num_frames += 1
    sha256 = hashlib.sha256(content).hexdigest()
    return Described(sha256=sha256, width=size[0], height=size[1], num_frames=num_frames)


def decoding_bytes(content: bytes, kind: MediaKind) -> int:
    """Return how much memory `describe` takes besides the content. Decodes nothing. Raises InputError."""
    if kind != "image":
        video_frames.checked_kind(content, kind)
    if kind == "video":
        return video_frames.BYTES_PER_FRAME_PIXEL * video_frames.most_pixels(content)
    if kind == "audio":
        return video_frames.SOUND_BYTES
    with _opened(content) as image:
        return _decoding_bytes(image)


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """Give the image, only its header read. Raises InputError, also for what the block raises."""
    file = video_frames.checked_kind(content, "image")
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise _too_large(f"it is {image.height} x {image.width} (height x width) and")
            if image.mode.startswith(DEEP_MODES):
                raise InputError("it has more than 8 bits per pixel of grey", "convert it to 8 bits")
            yield image
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise _too_large("it") from None
    except Exception:  # Pillow's decoders meet broken bytes with nearly every class there is
        names = ", ".join(IMAGE_FORMATS).lower()
        if file.name.upper() not in IMAGE_FORMATS:
            raise InputError(f"it is {file}, and only {names} are read", "convert it to png") from None
        problem = f"it is a {file.name} that cannot be decoded: damaged, cut off or in a rare format"
        raise InputError(problem, "write it again, as an 8-bit png or jpeg") from None


def _decoding_bytes(image: Image.Image) -> int:
    return BYTES_PER_PIXEL * image.width * image.height


def _too_large(what: str) -> InputError:
    return InputError(f"{what} has more than {MAX_IMAGE_PIXELS:,} pixels", "make it smaller")


MAX_DECODING_S = 600.0  # some ten times what the largest video takes that is allowed
# To open a file, before it is decoded: for what a container lists of its frames; for what libwebp reserves,
# but does not touch yet, for its largest picture, which is then refused by its size.
OPENING: dict[MediaKind, int] = {"video": 256 << 20, "image": 5 << 29, "audio": 256 << 20}
MORE = 256 << 20  # than decoding should take
# The kinds of answers, their first byte.
COST, DESCRIBED, REFUSAL = b"c", b"d", b"r"


class Describer:
    """Says what files hold, several at a time. For several threads."""

    def __init__(self) -> None:
        self._boxes = Sandboxes(__name__, max_silence_s=MAX_DECODING_S)
        self._cores = threading.Semaphore(os.cpu_count() or 1)

    def describe(self, content: bytes, kind: MediaKind) -> Described:
        """Return what the file holds, all of it decoded. Raises InputError."""
        try:
            with self._cores, self._boxes.one() as box:
                box.send(json.dumps({"kind": kind, "size": len(content)}).encode())
                box.send(content)
                answer = box.receive()
                if answer[:1] == COST:
                    with video_frames.DECODING.take(int(answer[1:])):
                        box.send(b"go on")
                        answer = box.receive()
        except Ended as error:
            problem = f"it cannot be read: {error}"
            raise InputError(problem, "convert it, e.g. to png, or to H.264 in mp4") from None
        values = json.loads(answer[1:])
        if answer[:1] == REFUSAL:
            raise InputError(*values)
        return Described(**values)

    def close(self) -> None:
        self._boxes.close()


def _answer(connection: Connection) -> None:
    """Answer one request: what decoding takes is reported first, and waits for a word before it starts."""
    request = json.loads(connection.recv_bytes())
    kind, size = request["kind"], request["size"]
    bound_memory(3 * size + OPENING[kind])  # the content, and a copy while it is received, or by a decoder
    content = connection.recv_bytes()
    try:
        cost = decoding_bytes(content, kind)
        connection.send_bytes(COST + str(cost).encode())
        connection.recv_bytes()
        bound_memory(cost + size + MORE)
        answer = DESCRIBED + json.dumps(asdict(describe(content, kind))).encode()
    except InputError as error:
        answer = _refused(error)
    except MemoryError:
        answer = _refused(InputError("it takes more memory to decode than it should", "write it again"))
    connection.send_bytes(answer)


def _refused(error: InputError) -> bytes:
    return REFUSAL + json.dumps([error.problem, error.fix]).encode()


if __name__ == "__main__":
    serve(_answer)


# Reads wait for servers, not for this machine; those of one that does not answer must not keep all others.
_NUM_THREADS = 16
# As many images as two leases name; of videos a few, the others are read when their turn comes.
_MAX_BYTES = 512 * 2**20


def open_arguments(
    arguments: Mapping[str, Any],
    read: Callable[[str], bytes],
    *,
    max_frames: int | None = None,
    mode: PictureMode = "RGB",
    references: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the arguments with every image and video opened.

    read: gives the bytes at a path or URL. max_frames: how many frames of a video are needed, from the first.
    mode: of images. references: see `references_of`. Raises InputError when the bytes are not those that were
    checked.
    """

    def opened(name: str, value: Any) -> Any:
        if isinstance(value, list):  # a new one: a pipeline may change it
            return [opened(name, part) for part in value]
        if not is_input(value):
            return value
        with naming(name, value["uri"]):
            content = checked_content(value, read)
            if "kind" in value:  # as the pipeline's own class of its kind opens it
                kind, classes = value["kind"], (references or {}).get(name, {})
                if kind not in classes:
                    fix = f"give one of {', '.join(classes) or 'none'}"
                    raise InputError(f"this model takes no {kind} there", fix)
                # no extension, by which FFmpeg could take it for something else than in the sandbox
                with tempfile.NamedTemporaryFile() as file:
                    file.write(content)
                    file.flush()
                    return classes[kind].from_file(file.name)
            if "num_frames" in value:
                most = min(value["num_frames"], max_frames or MAX_DECODED_FRAMES)
                return open_video(content, max_frames=most)
            return open_image(content, mode=mode)

    return {name: opened(name, value) for name, value in arguments.items()}


def checked_content(value: Mapping[str, Any], read: Callable[[str], bytes]) -> bytes:
    """Return the bytes of an input. Raises InputError where they are not those that were checked."""
    content = read(value["uri"])
    if hashlib.sha256(content).hexdigest() != value["sha256"]:
        problem = "the file has changed since the row was checked"
        raise InputError(problem, "restore the old file, or run the same command again to use the new one")
    return content


class ReadAhead:
    """Keeps what it has read, bounded by bytes; what was not asked for longest goes. For several threads."""

    def __init__(self, read: Callable[[str], bytes], *, max_bytes: int = _MAX_BYTES) -> None:
        self._read = read
        self._max_bytes = max_bytes
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="read")
        self._lock = threading.Lock()  # of what follows
        self._reads: OrderedDict[str, Future[bytes]] = OrderedDict()

    def start(self, uri: str) -> Future[bytes] | None:
        """Begin to read; return what is read. None: what was read already fills the bound."""
        with self._lock:
            if uri not in self._reads and self._num_bytes() < self._max_bytes:
                self._reads[uri] = self._threads.submit(self._read, uri)
            return self._reads.get(uri)

    def read(self, uri: str) -> bytes:
        """Return the bytes at `uri`; raises what reading them raised. A failed read is not kept."""
        with self._lock:
            future = self._reads.get(uri)
        try:
            return future.result() if future else self._read(uri)
        finally:
            with self._lock:
                if uri in self._reads:
                    self._reads.move_to_end(uri)
                excess = self._num_bytes() - self._max_bytes
                for address, read in list(self._reads.items()):
                    if read.done() and read.exception():
                        del self._reads[address]
                    elif read.done() and excess > 0:
                        excess -= len(read.result())
                        del self._reads[address]

    def _num_bytes(self) -> int:
        done = (read for read in self._reads.values() if read.done() and not read.exception())
        return sum(len(read.result()) for read in done)
