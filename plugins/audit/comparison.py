"""Compare two clips of the same row, and keep the distances for later runs."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from framefleet.api.clips import Frames
from framefleet.api.outputs import Output, Store, rows_of
from framefleet.plugins.audit.pairs import RowPair
from framefleet.plugins.columns.fill import Damaged, clip_frames
from framefleet.plugins.keep.replay.compare import difference

log = logging.getLogger(__name__)

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_WINDOW = 7  # pixels a side, the default of scikit-image
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # from the paper


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """The distance between two clips, over all frames."""

    max_levels: float  # largest difference of a channel, of 255
    psnr_db: float  # infinite if nothing differs
    ssim: float  # -1 to 1, which means equal


NO_DISTANCE = Distance(max_levels=0.0, psnr_db=math.inf, ssim=1.0)


def distance_of(one: Frames, other: Frames) -> Distance:
    """Return the distance between frames (T, H, W, 3) of the same shape."""
    differing = difference(one, other)
    if not differing.num_pixels:
        return NO_DISTANCE
    ssim = float(np.mean([ssim_of(here, there) for here, there in zip(one, other, strict=True)]))
    return Distance(max_levels=differing.max_levels, psnr_db=differing.psnr_db, ssim=ssim)


def ssim_of(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    """Return the structural similarity of two frames (H, W, 3): the mean over the luma of windows.

    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment", IEEE TIP 13(4), 2004, equation 13, with
    uniform windows of 7 x 7 pixels; the edges are mirrored.
    """
    from scipy.ndimage import uniform_filter

    x, y = (frame @ _LUMA for frame in (one, other))
    mean_x, mean_y, xx, yy, xy = (uniform_filter(of, _WINDOW) for of in (x, y, x * x, y * y, x * y))
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    alike = (2 * mean_x * mean_y + _C1) * (2 * cov + _C2)
    return float((alike / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))).mean())


_DISTANCES = "distances"  # folder of an audit
_CLIPS = ("row_id", "media_sha256", "other_media_sha256")
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _CLIPS),
        *((name, pa.float64()) for name in Distance.__dataclass_fields__),
        ("is_equal", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedPair:
    """The result for one row. problem: why there is no distance; such a row counts as off."""

    distance: Distance | None = None
    is_equal: bool = False  # bit-exact before encoding
    problem: str = ""

    def is_off(self, levels: float) -> bool:
        return self.distance is None or self.distance.max_levels > levels


class KeptDistances:
    """The distances in the folder of an audit, of earlier runs and this one."""

    def __init__(self, folder: Store) -> None:
        output = Output(folder)
        self._writer = output.writer(_DISTANCES, _SCHEMA)
        self._before: dict[tuple[str | None, ...], ComparedPair] = {}
        for table in output.tables(_DISTANCES, _SCHEMA):
            for row in rows_of(table, output.url):
                distance = Distance(**{name: row[name] for name in Distance.__dataclass_fields__})
                clips = tuple(row[name] for name in _CLIPS)
                self._before[clips] = ComparedPair(distance=distance, is_equal=row["is_equal"])

    def of(self, pair: RowPair) -> ComparedPair | None:
        """Return an earlier run's result for these two clips."""
        return self._before.get(_clips(pair))

    def add(self, pair: RowPair, outcome: ComparedPair) -> None:
        """Write a distance, unless it is known. Clips that could not be compared are tried again later."""
        if outcome.distance is None or self.of(pair):
            return
        clips = dict(zip(_CLIPS, _clips(pair), strict=True))
        self._writer.add(None, {**clips, **asdict(outcome.distance), "is_equal": outcome.is_equal})
        if self._writer.due(time.monotonic()):
            self._writer.flush()

    def flush(self) -> None:
        self._writer.flush()


def _clips(pair: RowPair) -> tuple[str | None, ...]:
    ours, theirs = pair
    return ours["row_id"], ours["media_sha256"], theirs["media_sha256"] if theirs else None


def compare_clips(our_store: Store, their_store: Store, pair: RowPair) -> ComparedPair:
    """Read the clips of two untrusted records, and return their distance."""
    ours, theirs = pair
    if theirs is None:
        return ComparedPair(problem="not rendered there")
    frames = []
    for store, record, where in ((our_store, ours, "here"), (their_store, theirs, "there")):
        if record["frames_sha256"] is None:
            return ComparedPair(problem=f"sound only {where}")
        try:
            frames.append(clip_frames(store, record))
        except Damaged as error:
            log.warning("row %s: %s", record["row_id"], error)
            return ComparedPair(problem=f"damaged {where}")
    if frames[0].shape != frames[1].shape:
        return ComparedPair(problem="different size or number of frames")
    distance = distance_of(*frames)
    # Digests are of frames before encoding. If these are equal, files can only differ by their codecs.
    formats = {str(record["path"]).partition(".")[2] for record in pair if record}
    is_equal = ours["frames_sha256"] == theirs["frames_sha256"]
    is_equal &= distance.max_levels == 0 or len(formats) == 2
    return ComparedPair(distance=NO_DISTANCE if is_equal else distance, is_equal=is_equal)
