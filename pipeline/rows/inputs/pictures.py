"""In: the bytes of a file from anywhere. Out: its RGB pictures, their size and number, or why it is refused.

Size and number are found out in a sandbox, which runs this file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, astuple, dataclass
from itertools import islice
from multiprocessing.connection import Connection

from PIL import Image, ImageOps

from framefleet.pipeline.errors import InputError
from framefleet.pipeline.guards.sandbox import Ended, Sandboxes, bound_memory, serve
from framefleet.pipeline.model.specs.signature import MediaKind, PictureMode
from framefleet.pipeline.rows.inputs import video_frames
from framefleet.pipeline.rows.inputs.roots import MAX_IMAGE_PIXELS
from framefleet.pipeline.rows.inputs.video_parts import VideoPart

# Other formats run programs (eps), are rarely meant (psd, ico), or few programs read them (avif).
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
BYTES_PER_PIXEL = 16  # the most, for WebP: libwebp's two canvases, its copy of them, and the picture
DEEP_MODES = ("I", "F")  # `convert` cuts their values off at 255 instead of scaling them


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What a file contains: the size of its upright pictures, and their number (1 for an image).

    For sound, width and height are 0, and num_frames is the number of samples. first_frame: for a part of a
    video, else None.
    """

    sha256: str
    width: int
    height: int
    num_frames: int
    first_frame: int | None = None


def open_image(content: bytes, *, mode: PictureMode = "RGB") -> Image.Image:
    """Return the same RGB image as `diffusers.utils.load_image`, pixel by pixel.

    So it is turned upright by its EXIF orientation, transparency and colour profile are dropped (not
    blended), and an animation is its first frame. mode: RGBA keeps transparency. Raises InputError.
    """
    with _opened(content) as image, video_frames.DECODING.take(_decoding_bytes(image)):
        ImageOps.exif_transpose(image, in_place=True)  # else there would be another copy in memory
        return image.convert(mode)


def open_video(content: bytes, *, max_frames: int, first: int = 0) -> list[Image.Image]:
    """Return RGB frames of one size, from `first` on. Raises InputError, but not for damage after them."""
    video_frames.checked_kind(content, "video")
    with closing(video_frames.frames_of(content, first=first)) as frames:
        return list(islice(frames, max_frames))


def describe_parts(
    content: bytes, kind: MediaKind, parts: Iterable[VideoPart | None]
) -> Iterator[Described | InputError]:
    """Yield for each part what it contains, or why it is refused; each is decoded separately.

    parts: None for the whole file. What passes here can be opened in another process.
    """
    sha256, times = hashlib.sha256(content).hexdigest(), None
    for part in parts:
        first, count, size, num_frames = None, None, (0, 0), 0
        try:
            if kind == "image":
                size, num_frames = open_image(content).size, 1
            elif kind == "audio":
                num_frames = video_frames.num_samples(content)
            else:
                video_frames.checked_kind(content, "video")
                if part is not None:
                    times = times or video_frames.frame_times_of(content)
                    first, count = part.frames(times.seconds, times.tick_s)
                with closing(video_frames.frames_of(content, first=first or 0, times=times)) as frames:
                    for frame in islice(frames, count):
                        size = frame.size
                        num_frames += 1
        except InputError as error:
            yield error
        except MemoryError:
            yield _too_much_memory()
        else:
            yield Described(
                sha256=sha256, width=size[0], height=size[1], num_frames=num_frames, first_frame=first
            )


DescribeParts = Callable[[bytes, MediaKind, Sequence[VideoPart | None]], Iterable[Described | InputError]]


def describe(content: bytes, kind: MediaKind, describe_parts: DescribeParts = describe_parts) -> Described:
    """Return what a whole file contains. Raises InputError."""
    (described,) = describe_parts(content, kind, [None])
    if isinstance(described, InputError):
        raise described
    return described


def decoding_bytes(content: bytes, kind: MediaKind) -> int:
    """Return the memory that `describe_parts` needs besides the content. Decodes nothing.

    Raises InputError.
    """
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
    """Yield the image, with only its header read. Raises InputError, also in place of errors in the block."""
    file = video_frames.checked_kind(content, "image")
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise _too_large(f"it is {image.height} x {image.width} (height x width) and")
            if image.mode.startswith(DEEP_MODES):
                raise InputError("it has more than 8 bits per grey pixel", "convert it to 8 bits")
            yield image
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise _too_large("it") from None
    except Exception:  # for broken bytes, Pillow's decoders raise errors of nearly any class
        names = ", ".join(IMAGE_FORMATS).lower()
        if file.name.upper() not in IMAGE_FORMATS:
            raise InputError(f"it is {file}, and only {names} are read", "convert it to png") from None
        problem = f"it is a {file.name} that cannot be decoded: damaged, cut off or in a rare format"
        raise InputError(problem, "write it again, as an 8-bit png or jpeg") from None


def _decoding_bytes(image: Image.Image) -> int:
    return BYTES_PER_PIXEL * image.width * image.height


def _too_large(what: str) -> InputError:
    return InputError(f"{what} has more than {MAX_IMAGE_PIXELS:,} pixels", "make it smaller")


MAX_DECODING_S = 600.0  # about ten times what the largest allowed video takes
# Memory to open a file, before it is decoded: for a container's list of frames; for what libwebp reserves for
# its largest picture, but does not use, because the picture is refused.
OPENING: dict[MediaKind, int] = {"video": 256 << 20, "image": 5 << 29, "audio": 256 << 20}
MORE = 256 << 20  # tolerance above what decoding should take
# The first byte of an answer.
COST, DESCRIBED, REFUSAL = b"c", b"d", b"r"


class Describer:
    """Describes files, several at a time. Threads may share it."""

    def __init__(self) -> None:
        self._boxes = Sandboxes(__name__, max_silence_s=MAX_DECODING_S)
        self._cores = threading.Semaphore(os.cpu_count() or 1)
        self._is_closed = False

    def describe_parts(
        self, content: bytes, kind: MediaKind, parts: Sequence[VideoPart | None]
    ) -> list[Described | InputError]:
        """Return for each part what it contains, or why it is refused. parts: None for the whole file."""
        answers: list[Described | InputError] = []
        try:
            with self._cores, self._boxes.one() as box:
                tuples = [part and astuple(part) for part in parts]
                box.send(json.dumps({"kind": kind, "size": len(content), "parts": tuples}).encode())
                box.send(content)
                answer = box.receive()
                if answer[:1] == REFUSAL:
                    return [InputError(*json.loads(answer[1:]))] * len(parts)
                with video_frames.DECODING.take(int(answer[1:])):
                    box.send(b"go on")
                    while len(answers) < len(parts):
                        kind_of, values = (answer := box.receive())[:1], json.loads(answer[1:])
                        answers.append(InputError(*values) if kind_of == REFUSAL else Described(**values))
        except Ended as error:
            problem = f"it cannot be read: {error}"
            ended = InputError(problem, "convert it, e.g. to png, or to H.264 in mp4")
            answers += [ended] * (len(parts) - len(answers))
        finally:
            if self._is_closed:  # while this was at work
                self._boxes.close()
        return answers

    def close(self) -> None:
        self._is_closed = True
        self._boxes.close()


def _answer(connection: Connection) -> None:
    """Answer one request: report how much memory decoding takes, wait for permission, decode."""
    request = json.loads(connection.recv_bytes())
    kind, size = request["kind"], request["size"]
    parts = [part and VideoPart(*part) for part in request["parts"]]
    bound_memory(3 * size + OPENING[kind])  # the content, and a copy while it is received, or by a decoder
    content = connection.recv_bytes()
    try:
        cost = decoding_bytes(content, kind)
    except InputError as error:
        connection.send_bytes(_refused(error))
        return
    except MemoryError:
        connection.send_bytes(_refused(_too_much_memory()))
        return
    connection.send_bytes(COST + str(cost).encode())
    connection.recv_bytes()
    bound_memory(cost + size + MORE)
    for described in describe_parts(content, kind, parts):
        if isinstance(described, InputError):
            connection.send_bytes(_refused(described))
        else:
            connection.send_bytes(DESCRIBED + json.dumps(asdict(described)).encode())


def _too_much_memory() -> InputError:
    return InputError("it takes more memory to decode than it should", "write it again")


def _refused(error: InputError) -> bytes:
    return REFUSAL + json.dumps([error.problem, error.fix]).encode()


if __name__ == "__main__":
    serve(_answer)
