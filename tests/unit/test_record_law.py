"""What a worker makes of a clip never contradicts itself, whatever rates, sounds and recipes there are."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from framefleet import Request
from framefleet.api.jobs import Claim
from framefleet.pipeline.outputs.encode_clip import encode_input
from framefleet.pipeline.outputs.file_step import FileStep, StepInput
from framefleet.pipeline.outputs.frames.frames import Pictures, to_pixels
from framefleet.pipeline.outputs.frames.result import Audio, audio_sha256
from framefleet.pipeline.outputs.layout import clip_path
from framefleet.pipeline.outputs.media.media_settings import Media, MediaFormat
from framefleet.pipeline.outputs.parts.records import record_schema, values_of
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.plugins.keep.record_law import RecordLaw
from tests.each import check_each
from tests.gallery_output import clip_of
from tests.rows import row_id

SOUND = Audio(samples=np.zeros((2, 8000), np.float32), sample_rate=8000)
RATES = (0.1, 0.5, 7.5, 12.5, 23.976, 23.98, 24.0, 29.97, 59.94, 99.5, 240.0, 300.0, 1000.0)
STILL: tuple[MediaFormat, ...] = ("png", "png.zip")  # webp and gif are slower


class Narrow(FileStep):
    def frames(self, frames: Pictures, of: StepInput) -> Pictures:
        return frames[1:, :, :32]


def contradiction(
    media: Media, request: Request, *steps: FileStep, digest: str | None = None, **clip: Any
) -> str | None:
    """Return what the law says of the record and the file that are made of a row."""
    of_row = row_id(request, model_digest="0" * 64, numerics={}, recipe_digest=digest)
    rendered = replace(clip_of(1, {}, seed=1), request=request, row_id=of_row, **clip)
    made = encode_input(StepInput(clip=rendered, media=media), steps)
    place = clip_path(of_row, made.suffix)
    record = values_of(made.record) | {"path": place, "uri": f"/out/{place}", "row_indices": (0,)}
    job = {"recipe": request.recipe, "media": {"fps": media.fps, "audio": media.audio}}
    claim = Claim.model_validate({"job": job, "recipe_digest": digest})
    return RecordLaw(claim, record_schema(pa.schema([]))).contradiction(record, made.content)


def pixels(num_frames: int) -> Any:
    return to_pixels(np.zeros((num_frames, 48, 64, 3), np.uint8))


def asked(**changed: Any) -> Request:
    return Request(arguments={"prompt": "a ball"}, **{"seed": 1, "recipe": "generate"} | changed)


def test_any_rate_of_a_row_is_its_own() -> None:
    stills = [(Media(format=format), 1, fps) for format, fps in product(STILL, RATES)]
    videos = product([Media(format="mp4"), Media(format="mkv"), Media(format="webm")], (1, 2, 9), RATES)

    def check(case: tuple[Media, int, float]) -> None:
        media, num_frames, fps = case
        assert contradiction(media, asked(fps=fps), pixels=pixels(num_frames)) is None

    check_each([*stills, *videos], check)


@pytest.mark.parametrize("has_sound", [True, False])
@pytest.mark.parametrize("native_fps", [None, 8.0])
def test_a_sound_that_the_job_drops_may_have_given_the_rate(
    has_sound: bool, native_fps: float | None
) -> None:
    media = Media(format="mkv", audio=has_sound)
    sound = {"audio": SOUND, "audio_sha256": audio_sha256(SOUND)}
    assert contradiction(media, asked(), native_fps=native_fps, **sound) is None


def test_a_step_may_change_the_size_of_a_file() -> None:
    for media in (Media(), Media(format="webp")):
        assert contradiction(media, asked(), Narrow()) is None


def test_a_recipe_of_a_plugin_is_that_of_the_job_and_not_what_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for installed in ("newer", "older"):
        monkeypatch.setitem(BUILT_IN, "theirs", replace(BUILT_IN["generate"], digest=installed))
        assert contradiction(Media(), asked(recipe="theirs"), digest="older") is None
