"""What encoders make of frames that are one level off: the figures behind `verify`'s verdict for lossy files.

    python -m tools.benchmarks.one_level [--short]

Two clips: one drawn with a little grain, one of the tiny Wan, which is noise. Each is encoded as it is and
with changes, and compared as decoded. "swallowed": of 20 single pixels, how many left no trace. "in class",
of 29 patterns of single levels: how far at most decibels are below, and the worst block above, those of
`one_level`, which the margins of `plugins/keep/replay/compare.py` are for. Then changes that are more.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

import framefleet
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.media.media import decode, encode
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.plugins.keep.replay.compare import Difference, difference, one_level
from tests.tiny import tiny

ENCODERS = (
    Media(),
    Media(crf=5),
    Media(crf=30),
    Media(encoder="libx265"),
    Media(encoder="libsvtav1"),
    Media(format="webm"),
    Media(format="webp"),
    Media(format="gif"),
)
CALL = {"prompt": "a", "num_frames": 9, "height": 80, "width": 80, "num_inference_steps": 2}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.one_level", description=__doc__)
    parser.add_argument("--short", action="store_true", help="the drawn clip and the first encoder alone")
    is_short = parser.parse_args().short
    rng = np.random.default_rng(0)
    clips = {"drawn": drawn(rng)} | ({} if is_short else {"tiny Wan": rendered()})
    for name, frames in clips.items():
        for media in ENCODERS[: 1 if is_short else None]:
            scale = "" if media.format == "gif" else f" {media.quality}"
            print(f"{name}, {media.format}{scale}" + (f" {media.codec}" if media.format == "mp4" else ""))
            measure(frames, media, rng)


def measure(frames: Frames, media: Media, rng: np.random.Generator) -> None:
    def encoded(changed: Frames) -> bytes:
        return encode(changed, media=media, fps=16.0, metadata={})

    def apart(changed: Frames) -> Difference:
        return difference(as_is, decode(encoded(changed)))

    as_is, reference = decode(encoded(frames)), one_level(frames, encoded)
    singles = [apart(single_pixel(frames, rng)) for _ in range(20)]
    print(f"  one pixel: {sum(one.num_pixels == 0 for one in singles)} of 20 swallowed; {shown(singles[-1])}")
    print(f"  1 % of pixels: {shown(apart(some(frames, 0.01, rng)))}")
    print(f"  all pixels: {shown(reference)}")
    found = [apart(changed) for changed in single_levels(frames, rng)]
    below = max(reference.psnr_db - one.psnr_db for one in found)
    above = max(one.worst_block for one in found) / reference.worst_block
    print(f"  in class: {below:.1f} dB, x {above:.1f}")
    for what, changed in more(frames, rng):
        one = apart(changed)
        said = "as one level" if one.is_like(reference) else "different"
        print(
            f"  {what}: {reference.psnr_db - one.psnr_db:.1f} dB, "
            f"x {one.worst_block / reference.worst_block:.1f}: {said}"
        )


def shown(one: Difference) -> str:
    return f"{100 * one.share:.2f} % of pixels, by {one.max_levels:.0f} at most, {one.psnr_db:.1f} dB"


def drawn(rng: np.random.Generator) -> Frames:
    y, x = np.mgrid[0:96, 0:128]
    waves = (
        np.stack([100 * np.sin(x / 17 + t / 5), 100 * np.cos(y / 13 - t / 4), 80 * np.sin((x + y) / 29)], -1)
        for t in range(9)
    )
    return np.stack([127 + wave + rng.normal(0, 2, wave.shape) for wave in waves]).clip(0, 255).astype("u1")


def rendered() -> Frames:
    request = framefleet.Request(arguments=CALL | {"max_sequence_length": 32}, seed=1)
    (clip,) = framefleet.Renderer(framefleet.load_model(str(tiny("wan")))).render([request])
    assert isinstance(clip, framefleet.Clip) and clip.frames is not None
    return clip.frames.astype(np.uint8)


def moved(frames: Frames, levels: np.ndarray) -> Frames:
    """Return frames with these levels added; subtracted where that leaves the range."""
    there = frames + levels
    is_out = (there < 0) | (there > 255)
    return np.where(is_out, frames - levels, there).clip(0, 255).astype(np.uint8)


def single_pixel(frames: Frames, rng: np.random.Generator) -> Frames:
    is_off = np.zeros(frames.shape[:3], bool)
    is_off[tuple(rng.integers(side) for side in is_off.shape)] = True
    return moved(frames, rng.choice([-1, 1], frames.shape) * is_off[..., None])


def some(frames: Frames, share: float, rng: np.random.Generator) -> Frames:
    is_off = rng.random(frames.shape[:3]) < share
    return moved(frames, rng.choice([-1, 1], frames.shape) * is_off[..., None])


def single_levels(frames: Frames, rng: np.random.Generator) -> Iterator[Frames]:
    for _ in range(5):
        yield from (some(frames, share, rng) for share in (0.001, 0.01, 0.1, 0.5, 1.0))
    yield moved(frames, np.full(frames.shape, -1))
    corner = np.zeros(frames.shape, int)
    corner[:, frames.shape[1] // 3 :, : frames.shape[2] // 2] = 1
    yield moved(frames, corner)
    yield moved(frames, 1 - corner)
    yield moved(frames, (rng.random((*frames.shape[:3], 1)) < 0.5).astype(int))


def more(frames: Frames, rng: np.random.Generator) -> Iterator[tuple[str, Frames]]:
    signs = rng.choice([-1, 1], frames.shape)
    yield "2 levels everywhere", moved(frames, 2 * signs)
    yield "4 levels everywhere", moved(frames, 4 * signs)
    yield "8 levels lighter", moved(frames, np.full(frames.shape, 8))
    block = np.zeros(frames.shape, int)
    block[4, 20:28, 20:28] = 40
    yield "8 x 8 pixels of a frame by 40 levels", moved(frames, block)


if __name__ == "__main__":
    main()
