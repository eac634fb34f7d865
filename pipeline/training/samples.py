"""In: a model under training and what to render. Out: clips and a contact sheet in `samples/<step>/`."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.outputs.clips import Clip, Failure, Outcome
from framefleet.pipeline.outputs.frames.frames import to_frames
from framefleet.pipeline.outputs.media.contact_sheet import contact_sheet
from framefleet.pipeline.outputs.media.media import encode
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.pipeline.render.renderer import Renderer
from framefleet.pipeline.request import clip_fps
from framefleet.pipeline.training.training import Training

_FOLDER = "samples"


def rendered_samples(model: Model, training: Training) -> list[Outcome]:
    """Render with the weights as they are now."""
    # One at a time: processes that share weights must make the same forwards, and probing goes by the clock.
    renderer = Renderer(model, Batching(mode="fast", max_rows=1), inputs=training.inputs)
    return list(renderer.render(training.samples))


def write_samples(store: Store, step: int, outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Write clips and their contact sheet; yield what is wrong with the others."""
    tiles = []
    for number, outcome in enumerate(outcomes, start=1):
        if isinstance(outcome, Failure):
            yield f"sample {number} could not be rendered: {outcome.error}"
            continue
        try:
            frames = to_frames(outcome)
        except RenderError as error:  # pixels beyond what a picture shows, as early weights may give
            yield f"sample {number} could not be shown: {error}"
            continue
        media = Media(format="png" if len(frames) == 1 else "mp4")
        fps = clip_fps(outcome.request.fps, outcome.native_fps)
        audio = outcome.audio if media.format == "mp4" else None
        content = encode(frames, media=media, fps=fps, metadata={"step": str(step)}, audio=audio)
        store.write(f"{_FOLDER}/{step}/{number:02}{media.suffix}", content)
        tiles.append((frames, _caption(outcome, step)))
    if tiles:
        picture = io.BytesIO()
        contact_sheet(tiles).save(picture, format="PNG")
        store.write(f"{_FOLDER}/{step}/contact-sheet.png", picture.getvalue())


def _caption(clip: Clip, step: int) -> str:
    return f"{clip.request.arguments.get('prompt', '')}\nseed {clip.request.seed}, after step {step:,}"
