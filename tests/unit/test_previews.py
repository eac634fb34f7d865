"""A still lies beside each clip: derived, so that what becomes of it harms nothing."""

from __future__ import annotations

import io
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from framefleet import Store
from framefleet.jobs.render.claim import differences_of
from framefleet.pipeline.outputs.encode_clip import encode_clip, store_clip
from framefleet.pipeline.outputs.frames.frames import Pictures, to_pixels
from framefleet.pipeline.outputs.layout import clip_path, preview_path
from framefleet.pipeline.outputs.media.media import PREVIEW_SIDE, preview_of
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.pending_clips import announce, finished_clips, intents_in
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, Record, values_of
from framefleet.plugins.keep.damage import ClipIndex, damaged_records, strays
from tests.outputs import records_in, write_part
from tests.unit.test_encode_clip import CLIP, LOSSLESS


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def commit(store: Store, record: Record) -> None:
    write_part(store, "records", RECORD_FIELDS, [values_of(record)], "r1")


def damages(store: Store) -> list[tuple[str, str]]:
    with closing(ClipIndex()) as index:
        found = [*damaged_records(store, index, lambda count: None)]
        found += strays(store, index)
    of_files = (damage for damage in found if damage.kind != "record")  # as the row_id is made up
    return [(damage.kind, damage.path) for damage in of_files]


@pytest.mark.parametrize(("shape", "size"), [((5, 480, 832, 3), (320, 185)), ((1, 64, 48, 4), (48, 64))])
def test_a_preview_is_small_and_always_the_same(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert preview_of(frames) == preview_of(frames.copy())
    still = opened(preview_of(frames))
    assert (still.format, still.size, max(still.size) <= PREVIEW_SIDE) == ("WEBP", size, True)
    assert still.mode == {3: "RGB", 4: "RGBA"}[shape[-1]]


def test_a_preview_shows_the_middle_frame_of_floats_too() -> None:
    frames: Pictures = np.stack([np.full((32, 32, 3), value, np.float32) for value in (9, 0.5, -3)])
    assert opened(preview_of(frames)).getpixel((16, 16)) == pytest.approx((128,) * 3, abs=3)


def test_a_preview_lies_beside_its_clip_under_the_same_name(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    record = store_clip(store, encode_clip(CLIP, LOSSLESS))
    assert record.preview_path == f"previews/ab/{CLIP.row_id}.webp"
    other = encode_clip(replace(CLIP, pixels=to_pixels(np.zeros((2, 16, 16, 3), np.uint8))), LOSSLESS)
    tagged = store_clip(store, other)
    assert tagged.preview_path == f"previews/ab/{CLIP.row_id}-{tagged.media_sha256[:8]}.webp"
    assert [len(store.list(folder)) for folder in ("clips", "previews")] == [2, 2]


def test_previews_can_be_left_out(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    record = store_clip(store, encode_clip(CLIP, replace(LOSSLESS, previews=False)))
    commit(store, record)
    assert (record.preview_path, store.list("previews")) == (None, [])
    assert records_in(store)["preview_path"].to_pylist() == [None]


def test_a_missing_or_broken_preview_is_no_damage_and_a_spare_one_is_a_stray(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    record = store_clip(store, encode_clip(CLIP, LOSSLESS))
    commit(store, record)
    assert damages(store) == []
    store.write(str(record.preview_path), b"broken")
    assert damages(store) == []
    store.delete(str(record.preview_path))
    assert damages(store) == []
    spare = preview_path(clip_path(CLIP.row_id, ".mkv", "0" * 8))
    store.write(spare, b"")
    store.write("previews/ab/mine.webp", b"")
    assert damages(store) == [("stray", spare), ("foreign", "previews/ab/mine.webp")]


@pytest.mark.parametrize("is_there", [True, False])
def test_an_adopted_clip_keeps_its_preview_if_that_was_stored(tmp_path: Path, is_there: bool) -> None:
    store, encoded = Store(str(tmp_path)), encode_clip(replace(CLIP, model_digest="0" * 64), LOSSLESS)
    announce(store, encoded.record, was_batched=False)
    stored = store_clip(store, encoded)
    if not is_there:  # killed between the two
        store.delete(str(stored.preview_path))
    (found,) = finished_clips(store, intents_in(store), ".mkv")
    assert found.record.preview_path == (stored.preview_path if is_there else None)


def test_a_null_that_removes_a_default_is_told_from_a_key_that_is_not_set() -> None:
    job = {"loras": {}, "second_models": {}, "media": {}}
    without, with_ = ({"job": job | {"defaults": values}} for values in ({}, {"negative_prompt": None}))
    assert differences_of(without, with_) == ["  defaults.negative_prompt: unset there, null here"]


def test_a_job_goes_on_with_previews_or_without() -> None:
    job = {"loras": {}, "second_models": {}, "media": {"crf": 18}}
    with_, without = ({"job": job | {"media": {**job["media"], "previews": on}}} for on in (True, False))
    assert differences_of(with_, without) == []
    assert Media().previews
