"""Compare a record and its stored files with the same row rendered again, and name the difference."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError

from framefleet.api.clips import Frames, Media, Pictures, decode, decode_audio, encode
from framefleet.api.errors import JobError, NoFile, StoreError, count_text, rounded
from framefleet.api.outputs import MAX_CLIP_BYTES, Output, Record, Store, kept_in
from framefleet.pipeline.outputs.frames.result import Pcm
from framefleet.pipeline.outputs.media.media import decode_floats
from framefleet.pipeline.outputs.media.media_settings import LOSSY
from framefleet.pipeline.outputs.output import recorded_clip, recorded_extras
from framefleet.pipeline.outputs.parts.part_file import is_unreadable
from framefleet.pipeline.outputs.parts.records import values_of
from framefleet.plugins.keep.damage import Damage
from framefleet.plugins.keep.replay.machines import AuditOfMachines, OtherMachine, machines_in, other_machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A row rendered again. Its functions are only called if something differs."""

    record: Record
    media: Media  # how the recorded clip was encoded, as far as that can be repeated
    frames: Callable[[], Pictures | None]  # as rendered
    content: Callable[[], bytes]  # the encoded file
    extras: Callable[[], Mapping[str, Any]] = dict  # tensors that are stored with the clip, by name


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoClips:
    """The stored clip, and the clip of the row rendered again."""

    there: bytes | None  # the stored file; None if it is neither the recorded one nor the new one
    there_sha256: str
    here: bytes  # the new one
    is_lossy: bool  # whether their format loses detail
    again: Again

    def frames(self) -> tuple[Pictures, Pictures] | None:
        """Return the frames of both, decoded if the format is lossy. None if either has none."""
        now = self.again.frames()
        read = decode if now is None or now.dtype == np.uint8 else decode_floats
        if self.there is None or now is None:
            return None
        try:
            return read(self.there), decode(self.here) if self.is_lossy else now
        except StoreError:  # no clip, or sound alone
            return None

    def sounds(self) -> tuple[Pcm, Pcm] | None:
        """Return the samples of both. None if either has none, or their rates differ."""
        try:
            decoded = [decode_audio(one) for one in (self.there, self.here) if one is not None]
        except StoreError:  # no clip
            return None
        sounds = [one for one in decoded if one is not None]
        if len(sounds) < 2 or sounds[0][1] != sounds[1][1]:
            return None
        return sounds[0][0], sounds[1][0]


def _read(store: Store, path: str) -> bytes:
    """Return the content of a file, or b"" if it is missing, unreadable or too large."""
    try:
        content = store.read(path, MAX_CLIP_BYTES + 1)
    except (FileNotFoundError, StoreError) as error:
        if isinstance(error, FileNotFoundError | NoFile) or is_unreadable(store, error):
            return b""
        raise
    return content if len(content) <= MAX_CLIP_BYTES else b""


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


Likeness = (
    Literal["bit-exact", "record damaged", "file damaged", "off by one", "off by about one", "other encoder"]
    | Literal["other machine", "different", "not rendered"]
)
FILE, _FRAMES, _SOUND = "media_sha256", "frames_sha256", "audio_sha256"
_TEXT, _EXTRAS = "extra_outputs", "extra_outputs_sha256"
_MARKED, _MARKED_SOUND = "marked_sha256", "marked_audio_sha256"
# Columns that follow from the frames and the row, whatever the file format.
_DERIVED = (
    *("height", "width", "num_frames", "frames_format", "audio_sample_rate", "audio_channels"),
    *("num_prompt_tokens", "is_prompt_cut"),
)
_ENCODING = ("av", "framefleet")  # parts of an environment that affect how frames are encoded
_TWICE_DB = 3.01  # if two encoders lose equally much, the mean square is twice that of one

EnvironmentChange = tuple[str, str, str]  # name, then, now
_LEVELS, _SOUND_PEAK = 255.0, 32767.0
_BLOCK = 8  # pixels a side; a mean over the whole clip would hide a difference in one place
# Encoders amplify some patterns of one-level differences more than others. Of 29 patterns, in 16 clips and
# encoders, none exceeded those of `one_level` by more than 1.0 dB, and no worst block was more than 1.6 times
# as different (`python -m tools.benchmarks.one_level`). Four levels everywhere, with H.264 at its default,
# exceed them by 3 dB.
_MARGIN_DB, _MARGIN_FACTOR = 1.5, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A row rendered again, compared with its record and its files. docs/damage.md explains verdicts."""

    verdict: Likeness
    which: tuple[str, ...] = ()  # columns of the record that differ or are wrong
    # How much the frames differ; None if they could not be compared.
    num_pixels: int | None = None
    share: float | None = None
    max_levels: float | None = None  # of 255
    psnr_db: float | None = None  # of the frames, or of the sound if only that differs
    is_decoded: bool = False  # whether decoded lossy files were compared, and not the frames themselves
    one_level_psnr_db: float | None = None  # of one level everywhere in this lossy format, to compare
    first_step: int | None = None  # first stored step whose latents differ; 0 is the noise
    machine: OtherMachine | None = None  # if this is another machine
    doubt: str | None = None  # another possible explanation

    def details(self) -> list[str]:
        """Return what differs and by how much, in the order of printing."""
        details = [" and ".join(self.which)] if self.which else []
        if self.share is not None:
            details.append(f"{count_text(self.num_pixels or 0, 'pixel')} ({rounded(100 * self.share, 2)} %)")
            details.append(f"by at most {self.max_levels:.3g} of 255 levels")
        if self.psnr_db is not None:
            details.append(f"PSNR {self.psnr_db:.1f} dB")
        if self.one_level_psnr_db is not None:
            details.append(f"compared to {self.one_level_psnr_db:.1f} dB for one level everywhere")
        if self.is_decoded:
            details.append("measured on two decoded lossy files")
        if self.first_step is not None:
            step = f"step {self.first_step}" if self.first_step else "the noise"
            details.append(f"latents differ from {step} on")
        return details

    def remarks(self) -> list[str]:
        """Return further remarks, one sentence each."""
        return [str(remark) for remark in (self.machine, self.doubt) if remark is not None]


def compared_digests(then: Record, now: Record) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield (name, then, now) for the digests that either record has."""
    file = () if then.media_encoder else (FILE,)
    for name in (_FRAMES, _SOUND, _TEXT, _EXTRAS, _MARKED, _MARKED_SOUND, *file):
        values = [getattr(record, name) for record in (then, now)]
        if name == _TEXT:  # may be any text, as records are not trusted
            values = [text and hashlib.sha256(text.encode()).hexdigest() for text in values]
        if values != [None, None]:
            yield name, values[0], values[1]


def compare(
    store: Store,
    then: Record,
    again: Again,
    *,
    damages: Sequence[Damage],
    changes: Sequence[EnvironmentChange] = (),
    audits: Sequence[AuditOfMachines] = (),
) -> Compared:
    """Compare a row rendered again with its record and files, and return the verdict.

    damages: of the record's files. changes: of the environment. audits: of clips of two machines.
    """
    digests = compared_digests(then, again.record)
    which = tuple(name for name, there, here in digests if there != here and name != FILE)
    lies = tuple(_other_than_derived(then, again.record)) if not which else ()
    if not which and not damages and not lies:
        return Compared(verdict="bit-exact")
    if not which and (lies or any(one.kind == "record" for one in damages)):
        return Compared(verdict="record damaged", which=lies)
    path, here = recorded_clip(values_of(then)).path, again.content()
    there, here_sha256 = _read(store, path), _sha256(here)
    there_sha256 = _sha256(there)
    clips = TwoClips(
        there=there if there_sha256 in (then.media_sha256, here_sha256) else None,
        there_sha256=there_sha256,
        here=here,
        is_lossy=path.endswith(tuple(f".{format}" for format in LOSSY)),
        again=again,
    )
    wrong = tuple(_wrong_in_record(store, then, again, which, clips))
    changed = [name for name, _, _ in changes]
    is_lost = clips.is_lossy and not {_FRAMES, _SOUND}.isdisjoint(which)
    if is_lost and machines_in(changed):  # explains the difference, so the record may be right
        wrong = tuple(name for name in wrong if name not in which)
    if wrong and set(which) <= set(wrong):
        doubt = "or the frames or the sound differ by less than this lossy file keeps" if is_lost else None
        return Compared(verdict="record damaged", which=wrong, doubt=doubt)
    if not which:
        is_there = any(one.path == path and one.kind != "missing" for one in damages)
        doubt = "or its media_sha256 is wrong: the file of the row rendered again does not match it either"
        is_unproven = is_there and here_sha256 != then.media_sha256
        return Compared(verdict="file damaged", doubt=doubt if is_unproven else None)
    compared = _different(then, again, tuple(name for name in which if name not in wrong), clips, changes)
    compared = replace(compared, first_step=_first_step(store, then, again))
    if compared.max_levels is None:
        return compared
    machine = other_machine(
        audits, values_of(then), changed, max_levels=compared.max_levels, psnr_db=compared.psnr_db
    )
    is_known = machine is not None and machine.is_within
    return replace(compared, machine=machine, verdict="other machine" if is_known else compared.verdict)


def _first_step(store: Store, then: Record, again: Again) -> int | None:
    """Return the first stored step whose latents differ, or None."""
    is_equal = then.extra_outputs_sha256 == again.record.extra_outputs_sha256
    if is_equal or not kept_in(then.extra_outputs).latents:
        return None
    try:
        there, here = Output(store).extras(values_of(then)), again.extras()
    except (JobError, SafetensorError):  # damaged; reported for the file
        return None
    count = len(here["timesteps"]) + 1  # the last steps are counted from the end
    steps = {int(name.partition(".")[2]) % count: name for name in here if name.startswith("latents.")}
    for step, name in sorted(steps.items()):
        one, other = there.get(name), here[name]
        if one is None or one.dtype != other.dtype or not one.equal(other):
            return step
    return None


def _other_than_derived(then: Record, now: Record) -> Iterator[str]:
    """Yield the known columns that differ, though every render of a row repeats them."""
    for name in _DERIVED:
        there, here = getattr(then, name), getattr(now, name)
        if there is not None and there != here:
            yield name


def _wrong_in_record(
    store: Store, then: Record, again: Again, which: Sequence[str], clips: TwoClips
) -> Iterator[str]:
    """Yield the columns of a record that its own files and the row rendered again contradict."""
    if clips.there is not None:
        for pair, names in ((clips.frames, (_FRAMES, _MARKED)), (clips.sounds, (_SOUND, _MARKED_SOUND))):
            wrong = [name for name in names if name in which]
            if wrong and (arrays := pair()) and np.array_equal(*arrays):
                yield from wrong
    file = recorded_extras(values_of(then))
    if _EXTRAS in which and file and _sha256(_read(store, file.path)) == again.record.extra_outputs_sha256:
        yield _EXTRAS
    if clips.there is not None:
        if clips.there_sha256 != then.media_sha256:
            yield FILE
        if len(clips.there) != then.bytes:
            yield "bytes"


def _different(
    then: Record, again: Again, which: tuple[str, ...], clips: TwoClips, changes: Sequence[EnvironmentChange]
) -> Compared:
    """Return by how much the clips differ. which: the columns that differ."""
    if clips.there is None or not {_FRAMES, _MARKED}.intersection(which):
        is_text, psnr_db = which == (_TEXT,), None
        sounds = clips.sounds() if clips.there and _SOUND in which else None
        if sounds and sounds[0].shape == sounds[1].shape:
            levels = sounds[0].astype(np.float64) - sounds[1]
            psnr_db = _psnr(float(np.square(levels).mean()), _SOUND_PEAK)
        return Compared(
            verdict="different",
            which=which,
            psnr_db=psnr_db,
            doubt="or the text in its record is damaged, and no file has a copy" if is_text else None,
        )
    frames = clips.frames()
    if frames is None or frames[0].shape != frames[1].shape:
        return Compared(verdict="different", which=which)
    distance = difference(*frames)
    compared = Compared(
        verdict="different",
        which=which,
        num_pixels=distance.num_pixels,
        share=distance.share,
        max_levels=distance.max_levels,
        psnr_db=distance.psnr_db if math.isfinite(distance.psnr_db) else None,
        is_decoded=clips.is_lossy,
    )
    # Whether only the frames differ, and with them the watermarked frames.
    are_frames = _FRAMES in which and {*which} <= {_FRAMES, _MARKED}
    if not clips.is_lossy:
        is_by_one = are_frames and distance.max_levels <= 1
        return replace(compared, verdict="off by one") if is_by_one else compared
    # Lossy files do not preserve a difference of one level, so compare with what such files make of it.
    rendered = again.frames()
    assert rendered is not None, "some differ"
    encoded = partial(encode, media=again.media, fps=then.fps or 1.0, metadata={})
    reference = one_level(rendered.astype(np.uint8, copy=False), encoded)
    if math.isfinite(reference.psnr_db):
        compared = replace(compared, one_level_psnr_db=reference.psnr_db)
    if are_frames and distance.is_like(reference):
        return replace(compared, verdict="off by about one")
    own = [f"{then.media_encoder} then"] if "nvenc" in (then.media_encoder or "") else []
    changed = [f"{name} {there} then, {here} now" for name, there, here in changes if name in _ENCODING]
    others = ", ".join([*own, *changed])
    if not others:
        return compared
    loss = difference(rendered, decode(encoded(rendered)))
    is_within = are_frames and distance.psnr_db >= loss.psnr_db - _TWICE_DB
    doubt = f"part of the difference is from the encoder: {others}"
    return replace(compared, verdict="other encoder" if is_within else "different", doubt=doubt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """By how much frames differ."""

    num_pixels: int
    share: float
    max_levels: float  # largest difference in any channel, of 255
    psnr_db: float  # over all channels; infinite if nothing differs
    worst_block: float  # root mean square of the block that differs most, in levels

    def is_like(self, one_level: Difference) -> bool:
        """Whether the difference is no larger than that of encoded frames that were one level off."""
        return (
            self.psnr_db >= one_level.psnr_db - _MARGIN_DB
            and self.worst_block <= one_level.worst_block * _MARGIN_FACTOR
        )


def difference(one: Pictures, other: Pictures) -> Difference:
    """Return by how much frames of the same shape differ. Floats are scaled to 255 levels.

    Frames without alpha are opaque, next to some with it: WebP does not store an alpha that is opaque.
    """
    if one.shape[-1] != other.shape[-1]:
        one, other = opaque(one), opaque(other)
    unit = 1.0 if one.dtype == np.uint8 else _LEVELS
    num_pixels, max_levels, squares, worst = 0, 0.0, 0.0, 0.0
    for here, there in zip(one, other, strict=True):  # by frame: differences take more memory than pixels
        levels = np.abs(here.astype(np.float32) - there.astype(np.float32)) * unit  # (H, W, C)
        num_pixels += int((levels.max(axis=-1) > 0).sum())
        max_levels = max(max_levels, float(levels.max()))
        blocks = np.square(levels, dtype=np.float64).mean(axis=-1)  # (H, W)
        for axis, side in enumerate(blocks.shape):  # sum each block; blocks at the edges may be smaller
            blocks = np.add.reduceat(blocks, range(0, side, _BLOCK), axis=axis)
        squares += float(blocks.sum())
        worst = max(worst, float(blocks.max()))
    return Difference(
        num_pixels=num_pixels,
        share=num_pixels / math.prod(one.shape[:3]),
        max_levels=max_levels,
        psnr_db=_psnr(squares / math.prod(one.shape[:3]), _LEVELS),
        worst_block=math.sqrt(worst) / _BLOCK,
    )


def opaque(frames: Pictures) -> Pictures:
    """Return frames with alpha."""
    most = 255 if frames.dtype == np.uint8 else 1.0
    return np.insert(frames, 3, most, axis=-1) if frames.shape[-1] == 3 else frames


def one_level(frames: Frames, encode: Callable[[Frames], bytes]) -> Difference:
    """Return the difference after encoding if every channel of every pixel is off by one level.

    The worse of two patterns: all levels up, and some up and some down. Both clips are decoded to compare.
    """
    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), frames.shape)
    as_is = decode(encode(frames))
    differences = []
    for sign in (np.int8(1), signs):
        up = (frames < 255) & ((sign > 0) | (frames == 0))  # 0 and 255 can only move one way
        moved = np.where(up, frames + np.uint8(1), frames - np.uint8(1)).astype(np.uint8)
        differences.append(difference(as_is, decode(encode(moved))))
    return Difference(
        num_pixels=max(one.num_pixels for one in differences),
        share=max(one.share for one in differences),
        max_levels=max(one.max_levels for one in differences),
        psnr_db=min(one.psnr_db for one in differences),
        worst_block=max(one.worst_block for one in differences),
    )


def _psnr(mean_square: float, peak: float) -> float:
    return 10 * math.log10(peak**2 / mean_square) if mean_square else math.inf
