"""Draw an output's clips as one picture or one video."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from framefleet.api.clips import Frames, Media, clip_fps, encode
from framefleet.api.commands import ClipsProgress, Overview
from framefleet.api.errors import FramefleetError, JobError, Refused, count_text
from framefleet.api.outputs import Output, Store, told_arguments
from framefleet.api.sections import AtLeastOne
from framefleet.pipeline.model.specs.check import check_fps
from framefleet.pipeline.outputs.media.media_settings import check_pace
from framefleet.plugins.pages.sheet import choice
from framefleet.plugins.pictures.contact_sheet import contact_sheet, shown_of, within
from framefleet.plugins.pictures.lettering import warn_of_missing_fonts

STILLS, MOVING = (".png", ".jpg", ".jpeg", ".webp"), (".mp4", ".mkv", ".gif", ".webp")
# The most pixels of a side. png and mkv hold whatever fits into memory.
_MAX_SIDES = {".webp": 16_383, ".mp4": 16_384, ".jpg": 65_500, ".jpeg": 65_500, ".gif": 65_535}
STRIP_TILE, GRID_TILE = 480, 192  # pixels: three frames; one of a grid, which plays or stands
_WEBP_QUALITY = 85
_SHEET_COLUMNS = 3  # cards side by side, as wide as a page

OnProgress = Callable[[ClipsProgress], object]
MAX_SHOWN_BYTES = 2 << 30  # of all frames of a picture, which are held at once
_GONE = (58, 30, 34)  # shown for a clip that cannot be read
_NAMES = {"num_inference_steps": "steps", "guidance_scale": "guidance"}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Drawn(Overview):
    """A picture, and what it shows. num_more: clips whose cell is already taken."""

    path: Path
    num_clips: int
    num_found: int
    num_more: int

    def overview(self) -> Mapping[str, object]:
        more = f", {self.num_more:,} more in the same cells" if self.num_more else ""
        return {"file": self.path, "clips": f"{self.num_clips:,} of {self.num_found:,}{more}"}


def sheet(
    output: str,
    to: str | Path,
    *,
    rows: str | None = None,
    columns: str | None = None,
    where: str | None = None,
    captions: Sequence[str] = (),
    limit: AtLeastOne = 60,
    tile: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
) -> Drawn:
    """Draw clips of an output in one picture: three frames of each, or a grid with one frame of each.

    to: a .png, .jpg or .webp file. rows, columns: columns of records for the sides of a grid, e.g. "prompt"
    and "seed". where: SQL on columns. captions: columns below each clip. limit: at most this many clips.
    tile: width of a clip in pixels; None is 480 for three frames and 192 for one. on_progress: called after
    each clip. Raises JobError if it cannot be drawn.
    """
    wanted = choice.ClipChoice(rows=rows, columns=columns, where=where, limit=limit, captions=tuple(captions))
    path, store = _checked_path(to, STILLS, tile), Output.open_rendered(output, storage_options).store
    tile = tile or (GRID_TILE if rows or columns else STRIP_TILE)
    chosen = choice.chosen_of(store, wanted)
    if rows or columns:
        tiles = _tiles(store, chosen, wanted, tile, on_progress, lambda num_frames: [num_frames // 2])
        picture = _picture(chosen, tiles, has_captions=bool(captions))
        image = Image.fromarray(next(picture.frames()))
    else:
        tiles = _tiles(store, chosen, wanted, tile, on_progress, shown_of)
        cards = ((one.frames, one.caption) for one in tiles)
        image = contact_sheet(cards, columns=min(_SHEET_COLUMNS, len(chosen.clips)), tile_width=tile)
    _check_size(path, image.size, or_use=".png")
    return _drawn(path, chosen, lambda to: image.save(to, quality=_WEBP_QUALITY))


def grid(
    output: str,
    to: str | Path,
    *,
    rows: str | None = None,
    columns: str | None = None,
    where: str | None = None,
    captions: Sequence[str] = (),
    limit: AtLeastOne = 60,
    tile: int = GRID_TILE,
    storage_options: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
) -> Drawn:
    """Draw clips of an output side by side, playing in sync; shorter ones stop at their last frame.

    to: an .mp4, .mkv, .gif or .webp file; the rest as for `sheet`.
    """
    wanted = choice.ClipChoice(rows=rows, columns=columns, where=where, limit=limit, captions=tuple(captions))
    path, store = _checked_path(to, MOVING, tile), Output.open_rendered(output, storage_options).store
    chosen = choice.chosen_of(store, wanted)
    media = Media(format=path.suffix[1:])  # type: ignore[arg-type]  # checked
    fps = max(_fps_of(place.record) for place in chosen.clips)
    check_pace(fps, media.format, JobError, instead="write an .mp4 file")
    tiles = _tiles(store, chosen, wanted, tile, on_progress, range)
    picture = _picture(chosen, tiles, has_captions=bool(captions) or not (rows or columns))
    width, height = picture.size
    _check_size(path, picture.size, or_use=".mkv")
    if (size_bytes := width * height * 3 * picture.num_frames) > MAX_SHOWN_BYTES:
        raise more_than_shown(f"a grid of {picture.num_frames:,} x {height} x {width}", size_bytes)
    content = encode(np.stack(list(picture.frames())), media=media, fps=picture.fps, metadata={})
    return _drawn(path, chosen, lambda to: to.write_bytes(content))


def _checked_path(to: str | Path, endings: Sequence[str], tile: int | None) -> Path:
    """Return the path. Raises JobError for one that cannot be written."""
    path = Path(to)
    if path.suffix.lower() not in endings:
        raise JobError(f"{path} ends with {path.suffix or 'nothing'}", f"use one of {', '.join(endings)}")
    if not path.parent.is_dir():
        raise JobError(f"{path.parent} is not a folder", "create it first")
    if tile is not None and not 16 <= tile <= 2048:
        raise JobError(f"tile is {tile}", "use 16 to 2048 pixels")
    return path.with_suffix(path.suffix.lower())


def _check_size(path: Path, size: tuple[int, int], *, or_use: str) -> None:
    """Raise JobError for a picture that the file's format cannot hold. size: width and height."""
    most = _MAX_SIDES.get(path.suffix)
    if most and max(size) > most:
        pixels = f"{size[0]:,} x {size[1]:,} pixels"
        problem = f"{path} would have {pixels}, but a side of {path.suffix} has at most {most:,}"
        fix = "choose fewer clips (--limit, --where) or smaller ones (--tile), or use"
        raise JobError(problem, f"{fix} {or_use}")


def _tiles(
    store: Store,
    chosen: choice.Chosen,
    wanted: choice.ClipChoice,
    width: int,
    on_progress: OnProgress | None,
    which: Callable[[int], Sequence[int]],
) -> Iterator[choice.Tile]:
    """Yield clips as they are shown. which: from the number of frames to those to show."""
    num_read = 0
    for place in chosen.clips:
        caption = caption_of(place.record, wanted.captions)
        shown = _shown(store, place.record, width, which)
        num_read += shown is not None
        frames, fps = shown or (np.full((1, width, width, 3), _GONE, np.uint8), 1.0)
        yield choice.Tile(frames=frames, fps=fps, row=place.row, column=place.column, caption=caption)
        if on_progress:
            on_progress(ClipsProgress(doing="read", done=num_read, total=len(chosen.clips)))


def _picture(
    chosen: choice.Chosen, tiles: Iterator[choice.Tile], *, has_captions: bool
) -> choice.GridPicture:
    shown, size_bytes = list[choice.Tile](), 0
    for tile in tiles:
        shown.append(tile if has_captions else replace(tile, caption=""))
        size_bytes += tile.frames.nbytes
        if size_bytes > MAX_SHOWN_BYTES:
            raise more_than_shown(f"{len(shown):,} of these clips", size_bytes)
    titles = [tile.caption.partition("\n")[0] for tile in shown]
    warn_of_missing_fonts([*titles, *chosen.row_names, *chosen.column_names])
    return choice.GridPicture(tiles=shown, row_names=chosen.row_names, column_names=chosen.column_names)


def _drawn(path: Path, chosen: choice.Chosen, write: Callable[[Path], object]) -> Drawn:
    """Write a whole file or none; return what it shows."""
    half = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(half)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
    return Drawn(path=path, num_clips=len(chosen.clips), num_found=chosen.num_found, num_more=chosen.num_more)


def _shown(
    store: Store, record: Mapping[str, Any], width: int, which: Callable[[int], Sequence[int]]
) -> tuple[Frames, float] | None:
    """Return frames and rate of a clip; None, and a warning, where it cannot be read.

    Raises JobError where the frames, enlarged, take more than `MAX_SHOWN_BYTES`.
    """
    try:
        frames = Output(store).frames(record)
    except FramefleetError as error:
        log.warning("%s", error)
        return None
    chosen = which(len(frames))
    if (size_bytes := np.asarray(within(frames[0], width)).nbytes * len(chosen)) > MAX_SHOWN_BYTES:
        raise more_than_shown(f"a clip of {count_text(len(frames), 'frame')}", size_bytes)
    small = [np.asarray(within(frames[number], width)) for number in chosen]
    return np.stack(small), _fps_of(record)


def _fps_of(record: Mapping[str, Any]) -> float:
    fps = check_fps(record["fps"])  # images have none
    return clip_fps(None if isinstance(fps, Refused) else fps)


def more_than_shown(what: str, size_bytes: int) -> JobError:
    problem = f"{what} would need {size_bytes / 1e9:.1f} GB to be drawn"
    return JobError(problem, "choose fewer clips (--limit, --where) or smaller ones (--tile)")


def caption_of(record: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return a caption: these columns, the first as its title; or prompt, seed and steps."""
    if names:
        title, *others = (choice.value_of(record, name) for name in names)
        first = title if isinstance(title, str) else f"{names[0]} {choice.caption_text(title)}"
        labelled = [
            f"{name} {choice.caption_text(value)}" for name, value in zip(names[1:], others, strict=True)
        ]
        return f"{first}\n{', '.join(labelled)}"
    arguments = told_arguments(record)
    details = [f"seed {record['seed']}"]
    for name, short in _NAMES.items():
        if isinstance(value := arguments.get(name), int | float):
            details.append(f"{short} {choice.caption_text(value)}")
    return f"{arguments.get('prompt') or ''}\n{', '.join(details)}"
