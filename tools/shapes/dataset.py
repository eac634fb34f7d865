"""In: a number of clips and a seed. Out: a folder of clips and a table with their captions.

The table is written last: where it is, all its clips are.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import track

from framefleet.jobs.show.console import stderr
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.media.media import encode
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.plugins.demo.prepare import Size
from framefleet.plugins.demo.vocabulary import MOTIONS
from framefleet.plugins.train.dataset.columns import MAX_REPEATS
from tools.shapes.drawing import OUTLINES, PALETTE, draw
from tools.shapes.scenes import (
    LANGUAGES,
    NEW_COLORS,
    NEW_SHAPES,
    SIZE,
    Scene,
    captions,
    check_size,
    new_scenes,
    training_scenes,
)

TABLE = "dataset.parquet"
MEDIA = Media(format="mkv")  # lossless: H.264 keeps the colours of every fourth pixel only
FPS = 8.0
REPEATABLE = (*OUTLINES, *PALETTE, *MOTIONS)
_NUM_WRITERS = 4  # a clip is drawn and encoded in 5 ms, and a store may take longer to keep it


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row of the dataset. video: relative to the table.

    paraphrase: the prompt in other words of either language. contrast: the same with both colours exchanged,
    which a text encoder takes for the same until it is shown that it is not; of a held-out scene, too.
    repeats: in an epoch.
    """

    video: str
    prompt: str
    paraphrase: str
    contrast: str
    language: str
    shape: str
    color: str
    background: str
    motion: str
    seed: int
    num_frames: int
    height: int
    width: int
    repeats: int = 1

    @property
    def scene(self) -> Scene:
        return Scene(shape=self.shape, color=self.color, background=self.background, motion=self.motion)


def write_dataset(
    output: str,
    *,
    num_clips: int,
    seed: int = 0,
    num_new: int = 0,
    sizes: Sequence[Size] = (SIZE,),
    repeats: Mapping[str, int] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> str:
    """Write a dataset and return its table's path or URL; equal arguments, equal bytes.

    num_new: this many clips, the last, have the new shape or the new colour. sizes: each clip has one of
    them, drawn at random; one that is given twice comes twice as often. repeats: how often an epoch has clips
    of a shape, a colour or a motion. Held-out scenes are never taken. Raises JobError when `output`
    holds another dataset; the same one is left as it is.
    """
    examples = examples_of(num_clips, seed=seed, num_new=num_new, sizes=sizes, repeats=repeats)
    store, table = Store(output, storage_options), _parquet(examples)
    if not _is_there(store, table):
        with ThreadPoolExecutor(_NUM_WRITERS) as writers:
            written = writers.map(partial(_write_clip, store), examples)
            deque(track(written, "drawing clips", total=len(examples), console=stderr), maxlen=0)
        store.create(TABLE, table)
    return store.url_of(TABLE)


def examples_of(
    num_clips: int,
    *,
    seed: int = 0,
    num_new: int = 0,
    sizes: Sequence[Size] = (SIZE,),
    repeats: Mapping[str, int] | None = None,
) -> list[Example]:
    """Return the rows of a dataset; half of their texts are English, about."""
    repeats = repeats or {}
    _check(num_clips, num_new, sizes, repeats)
    random, random_size = Random(f"dataset {seed}"), Random(f"dataset sizes {seed}")
    scenes = training_scenes(num_clips - num_new, seed=seed)
    scenes += training_scenes(num_new, seed=seed, among=new_scenes())
    examples = []
    for index, scene in enumerate(scenes):
        clip_seed = random.getrandbits(31)
        size = random_size.choice(sizes)
        exchanged = replace(scene, color=scene.background, background=scene.color)
        language = random.choice(LANGUAGES)
        examples.append(
            Example(
                video=f"clips/{index:06}{MEDIA.suffix}",
                prompt=captions(scene, seed=clip_seed)[language],
                paraphrase=captions(scene, seed=random.getrandbits(31))[random.choice(LANGUAGES)],
                contrast=captions(exchanged, seed=random.getrandbits(31))[random.choice(LANGUAGES)],
                language=language,
                seed=clip_seed,
                **size._asdict(),
                repeats=max(repeats.get(word, 1) for word in (scene.shape, scene.color, scene.motion)),
                **asdict(scene),
            )
        )
    return examples


def _check(num_clips: int, num_new: int, sizes: Sequence[Size], repeats: Mapping[str, int]) -> None:
    if num_clips < 1:
        raise JobError(f"{num_clips} clips are not dataset", "ask for at least 1")
    if not 0 <= num_new <= num_clips:
        raise JobError(f"{num_new} new ones of {num_clips} clips", f"use 0 to {num_clips}")
    for size in sizes:
        check_size(size)
    for word, count in repeats.items():
        if word not in REPEATABLE:
            raise JobError(f"repeats: no clip shows {word!r}", f"use {', '.join(REPEATABLE)}")
        if word in (*NEW_SHAPES, *NEW_COLORS) and not num_new:
            raise JobError(f"repeats: {word} is new, and no clip is", "ask for some new clips")
        if not 1 <= count <= MAX_REPEATS:
            raise JobError(f"repeats: {word} is {count}", f"use 1 to {MAX_REPEATS:,}")


def _is_there(store: Store, table: bytes) -> bool:
    """Tell whether this dataset is complete. Raises JobError when another one is."""
    try:
        found = store.read(TABLE)
    except FileNotFoundError:
        return False
    if found != table:
        raise JobError(f"{store.url_of(TABLE)} is of another dataset", "choose another folder")
    return True


def _write_clip(store: Store, example: Example) -> None:
    frames = draw(
        example.scene,
        seed=example.seed,
        num_frames=example.num_frames,
        height=example.height,
        width=example.width,
    )
    clip = encode(frames, media=MEDIA, fps=FPS, metadata={"prompt": example.prompt})
    store.write(example.video, clip)


def _parquet(examples: Sequence[Example]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(example) for example in examples]), buffer)
    return buffer.getvalue()
