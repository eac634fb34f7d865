"""From a cell that names media by path or URL to the value that identifies its row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from framefleet.pipeline.errors import Refused
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.model.specs import signature
from framefleet.pipeline.model.specs.check import MAX_IMAGES, check_frames, is_list, parsed_list
from framefleet.pipeline.model.specs.spec import PipelineSpec

if TYPE_CHECKING:  # imports decoders
    from framefleet.pipeline.rows.inputs.pictures import Described


class Finder:
    """Opens what rows name, each once, many at a time; this one nothing, for plans of rows that name nothing,
    or whose job does not say where it may lie. `InputIndex` is the one that does.
    """

    def prefetch(self, wanted: Iterable[tuple[str, signature.MediaKind]]) -> None:
        """Open all of these now, side by side."""

    def find(self, uri: str, kind: signature.MediaKind) -> Described | Refused:
        """Return what a file holds, or why it is not of that kind."""
        return Refused(reason="nothing says where images may lie", fix="set `inputs: {roots: [...]}`")

    def locate(self, uri: str) -> str:
        """Return what names the same file in any folder."""
        return uri


def check_input(cell: Any, kind: signature.MediaKind, finder: Finder) -> dict[str, Any] | Refused:
    """Return {"uri", "sha256"}, and "num_frames" of a video; or why it cannot be rendered from."""
    if not isinstance(cell, str) or not cell.strip():
        return Refused(reason=f"it must be the path or URL of {_A[kind]}", fix="write one, or leave it empty")
    seen = finder.find(cell.strip(), kind)
    if isinstance(seen, Refused):
        return seen
    if kind == "audio" and not seen.num_frames:
        return Refused(reason="it has no sound", fix="give a file with a sound track")
    frames = {"num_frames": seen.num_frames} if kind == "video" else {}
    return {"uri": finder.locate(cell.strip()), "sha256": seen.sha256, **frames}


def check_images(
    cell: Any, kind: signature.ImagesKind, finder: Finder
) -> dict[str, Any] | list[dict[str, Any]] | Refused:
    """Return what `check_input` does for each image of a list; of one that is not a list, for it alone.

    kind: "list[image]" makes a list of one image too. A cell is a list, or JSON text of one.
    """
    if not is_list(cell):
        value = check_input(cell, "image", finder)
        return value if isinstance(value, Refused) or kind == "images" else [value]
    places = places_in(cell)
    check = partial(check_input, kind="image", finder=finder)
    return _check_each(places, check, of="paths or URLs of images", fix='use one, as ["a.png", "b.png"]')


def check_references(cell: Any, finder: Finder) -> list[dict[str, Any]] | Refused:
    """Return what `check_input` does for each entry of a list of media, and its kind, in order.

    A cell is a list of mappings such as {"image": "a.png"}, or JSON text of one. A video's sound, if it has
    any, is a part of the reference, and checked too.
    """
    entries = places_in(cell) if is_list(cell) else []
    check = partial(_check_reference, finder=finder)
    return _check_each(entries, check, of="images, videos and sounds", fix=_REFERENCES)


def _check_each(
    entries: list[Any], check: Callable[[Any], dict[str, Any] | Refused], *, of: str, fix: str
) -> list[dict[str, Any]] | Refused:
    if not entries or len(entries) > MAX_IMAGES:
        return Refused(reason=f"it must be a list of 1 to {MAX_IMAGES} {of}", fix=fix)
    values = []
    for position, entry in enumerate(entries):
        value = check(entry)
        if isinstance(value, Refused):
            return Refused(reason=f"its entry {position}, {_public(entry)!r}: {value.reason}", fix=value.fix)
        values.append(value)
    return values


def _check_reference(entry: Any, finder: Finder) -> dict[str, Any] | Refused:
    places = _places_by_kind(entry)
    if len(places) != 1:
        reason = f"an entry names one file, as one of {', '.join(signature.MEDIA)}"
        return Refused(reason=reason, fix=_REFERENCES)
    ((kind, place),) = places.items()
    value = check_input(place, kind, finder)
    if isinstance(value, Refused):
        return value
    if kind == "video" and isinstance(sound := finder.find(place.strip(), "audio"), Refused):
        return sound
    return {"kind": kind, **value}


def _places_by_kind(entry: Any) -> dict[signature.MediaKind, Any]:
    """Return what an entry names; in a column of structs, every entry has all fields, and most are null."""
    entry = entry if isinstance(entry, Mapping) else {}
    places = {key: place for key, place in entry.items() if place is not None}
    return places if places.keys() <= {*signature.MEDIA} else {}


def places_in(cell: Any) -> list[Any]:
    """Return what a cell names: one place, those of its list, or none where it is no such list."""
    parts = parsed_list(cell) if is_list(cell) else [cell]
    return parts if isinstance(parts, list) else []


def files_in(cell: Any, kind: signature.ArgumentKind) -> Iterator[tuple[str, signature.MediaKind]]:
    """Yield the files that a cell of this kind names, with what each has to be."""
    for place in places_in(cell):
        files: list[tuple[signature.MediaKind, Any]] = [("video" if kind == "video" else "image", place)]
        if kind == "references":
            places = _places_by_kind(place)
            files = [*places.items()] + [("audio", place) for of, place in places.items() if of == "video"]
        yield from ((uri.strip(), of) for of, uri in files if isinstance(uri, str) and uri.strip())


def public_cell(cell: Any) -> Any:
    """Return a cell that names files as it may be shown, without what is secret in URLs."""
    return [_public(place) for place in places_in(cell)] if is_list(cell) else _public(cell)


def _public(place: Any) -> Any:
    if isinstance(place, Mapping):
        return {key: _public(inner) for key, inner in place.items() if inner is not None}
    return public_url(place) if isinstance(place, str) else place


def check_video_length(video: Any, asked: int | None, spec: PipelineSpec) -> Refused | None:
    """Return why a row's video is too short, or does not fit the model's frame rule.

    asked: the row's own num_frames, the first of which are taken; None where all are. Not where the pipeline
    itself takes a number of frames: there the video is a part of the clip.
    """
    if any(name in spec.parameters for name in signature.FRAME_PARAMETERS):
        return None
    num_frames = video["num_frames"]
    if asked is not None and num_frames < asked:
        reason = f"it has {num_frames} frames, and num_frames is {asked}"
        return Refused(reason=reason, fix=f"use {num_frames} or less")
    checked = check_frames(num_frames if asked is None else asked, spec)
    if not isinstance(checked, Refused) or asked is not None:  # num_frames itself is reported already
        return None
    fix = f"{checked.fix}, or let the recipe video_to_video take the first num_frames"
    return Refused(reason=f"it has {num_frames} frames, and {checked.reason}", fix=fix)


_A = {"image": "an image", "video": "a video", "audio": "a sound"}
_REFERENCES = 'write it as [{"image": "a.png"}, {"video": "b.mp4"}, {"audio": "c.wav"}]'
