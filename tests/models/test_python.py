"""framefleet in Python and in notebooks: clips saved and played, progress, mistakes told."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

import framefleet
from framefleet import Batching, Clip, Model, Renderer, Request, load_model
from framefleet.pipeline.errors import FramefleetError, JobError, RenderError
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.media.media import decode
from framefleet.plugins.demo.prepare import MODEL

PROMPT = "a <b>red</b> ball bounces"


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(MODEL, device="cpu")


@pytest.fixture(scope="module")
def clip(model: Model) -> Clip:
    request = Request(arguments={"prompt": PROMPT, "num_inference_steps": 1}, seed=3)
    (clip,) = Renderer(model).render([request])
    assert isinstance(clip, Clip)
    return clip


def frames_of(clip: Clip) -> Frames:
    assert clip.frames is not None
    return clip.frames


def test_a_saved_clip_has_its_frames(clip: Clip, tmp_path: Path) -> None:
    place = clip.save(tmp_path / "clip.mkv", fps=8)
    assert (decode(place.read_bytes()) == frames_of(clip)).all()
    assert clip.save(str(tmp_path / "Clip.MP4")).stat().st_size > 100


def test_a_clip_is_not_saved_as_what_cannot_hold_it(clip: Clip, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"clip\.avi has an unknown ending"):
        clip.save(tmp_path / "clip.avi")
    with pytest.raises(RenderError, match="png holds one frame"):
        clip.save(tmp_path / "clip.png")
    assert not any(tmp_path.iterdir())


def test_a_notebook_plays_a_clip_and_runs_no_prompt(clip: Clip) -> None:
    html = clip._repr_html_()
    kind, _, content = html.partition('src="data:')[2].partition('"')[0].partition(";base64,")
    assert kind == "video/mp4" and decode(b64decode(content)).shape == frames_of(clip).shape
    assert "<b>" not in html and "&lt;b&gt;" in html and "seed 3" in html


def test_progress_is_shown_where_it_is_wanted(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    requests = [Request(arguments={"prompt": PROMPT, "num_inference_steps": 1}, seed=seed) for seed in (0, 1)]
    list(Renderer(model).render(requests[:1]))
    assert "row" not in capsys.readouterr().err  # no terminal
    list(Renderer(model).render(requests, progress=True))
    assert "2/2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"prompt": PROMPT}, "request 0 is {'prompt': 'a <b>red</b> ball bounces'}, of type dict"),
        (PROMPT, "request 0 is 'a <b>red</b> ball bounces', of type str"),
        (Request(arguments={"prmpt": "a"}), r"takes no argument 'prmpt'\nhint: did you mean 'prompt'"),
        (
            Request(arguments={"prompt": "a", "num_frames": 8}),
            "num_frames is 8.*\nhint: use 7 or 9",
        ),
        (Request(arguments={"seed": 1}), r"request 0 has no 'prompt'\nhint: add it to `arguments`"),
        (Request(arguments={"prompt": 5}), r"request 0, .* 'prompt' holds int64.*\nhint: use text"),
    ],
)
def test_what_was_passed_in_place_of_a_request_is_told(model: Model, given: Any, told: str) -> None:
    with pytest.raises(FramefleetError, match=told):
        list(Renderer(model).render([given]))


def test_what_was_passed_in_place_of_model_batching_and_job_is_told(model: Model) -> None:
    with pytest.raises(JobError, match="model is '/models/wan', of type str"):
        Renderer("/models/wan")  # type: ignore[arg-type]
    with pytest.raises(JobError, match="batching is 'fast', of type str"):
        Renderer(model, "fast")  # type: ignore[arg-type]
    with pytest.raises(JobError, match="job is 5, of type int"):
        framefleet.render(5)  # type: ignore[arg-type]
    with pytest.raises(JobError, match=r"job is \[\], of type list"):
        framefleet.train([])  # type: ignore[arg-type]


def test_a_model_and_a_clip_are_shown_in_one_line_and_batching_is_exact(model: Model, clip: Clip) -> None:
    assert len(repr(model)) < 200 and "WanPipeline" in repr(model)
    assert len(repr([clip])) < 200 and PROMPT in repr([clip])
    assert Renderer(model).batching == Batching()
