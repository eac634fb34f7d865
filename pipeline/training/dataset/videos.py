"""From a training row to the frames of its bucket.

The first frames are taken, as they are stored: a model learns motion at the rate of the files. Each picture
is resized, with antialiasing, until it covers the bucket, and its middle is cut out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from itertools import islice

import numpy as np
from PIL import Image, ImageOps

from framefleet.pipeline.errors import InputError, TableError
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.rows.inputs.access import naming
from framefleet.pipeline.rows.inputs.file_kinds import file_kind
from framefleet.pipeline.rows.inputs.pictures import open_image
from framefleet.pipeline.rows.inputs.video_frames import frames_of
from framefleet.pipeline.training.task import Bucket, TrainingRow


def read_frames(row: TrainingRow, read: Callable[[str], bytes]) -> Frames | None:
    """Return uint8 RGB (T, H, W, 3) of the row's bucket; None where it has no video.

    read: gives the bytes at a path or URL. Raises TableError when they are not those that were surveyed.
    """
    if row.video is None:
        return None
    try:
        with naming("video", row.video):
            content = read(row.video)
            if hashlib.sha256(content).hexdigest() != row.sha256:
                raise InputError(
                    "it is another than when the table was surveyed",
                    "put the first one back, or train into another output",
                )
            with closing(_pictures(content)) as pictures:
                return fitted_frames(pictures, row.bucket)
    except InputError as error:
        raise TableError(f"row {row.index}: {error.problem}", error.fix) from error


def fitted_frames(pictures: Iterable[Image.Image], bucket: Bucket) -> Frames:
    """Return the first pictures in the size of the bucket, which none is smaller than."""
    size = (bucket.width, bucket.height)
    chosen = islice(pictures, bucket.num_frames)  # one by one: those of a film may be gigabytes together
    return np.stack([np.asarray(ImageOps.fit(picture, size, Image.Resampling.BICUBIC)) for picture in chosen])


def _pictures(content: bytes) -> Generator[Image.Image]:
    found = file_kind(content)
    if found is not None and found.kind == "image" and found.name != "gif":
        yield open_image(content)
    else:
        yield from frames_of(content)
