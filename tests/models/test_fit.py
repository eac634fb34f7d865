"""Clips that start from pictures of any proportions, against plain calls on what is left of the pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import load_image
from PIL import Image

from framefleet import InputError, Store, replay, replay_script
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from framefleet.pipeline.outputs.parts.parts import find_record
from tests.commands import command
from tests.here import render_here, run_script
from tests.jobs import job_values, write_job, write_table
from tests.long import long_but
from tests.tiny import SMALLEST, tiny

SIZES = {"wide.png": (36, 72), "tall.png": (72, 36), "square.png": (40, 40), "turned.png": (36, 72)}
SIDES = {"wan_i2v": 64, "ltx_i2v": 64, "flux_img2img": 64, "flux_kontext": 64, "cogvideox_i2v": None}
# Of CogVideoX, which takes no other size than its own, where no row gives one.
CASES = [(model, fit) for model, side in SIDES.items() for fit in (("area", "crop") if side else (None,))]


def job(folder: Path, model: str, **inputs: Any) -> dict[str, Any]:
    """Write the pictures and a table of them; return the job."""
    rows = []
    for seed, (name, (height, width)) in enumerate(SIZES.items()):
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels)
        if name == "turned.png":
            picture.getexif()[0x0112] = 8  # seen as it is when turned by 90 degrees
        picture.save(folder / name, exif=picture.getexif())
        rows.append({"prompt": "a red ball", "seed": seed, "image": name})
    values = job_values(write_table(folder / "t.parquet", rows), folder / "out", model=model)
    others = {name: value for name, value in SMALLEST[model].items() if name not in ("height", "width")}
    sides = {"height": SIDES[model], "width": SIDES[model]} if SIDES[model] else {}
    return values | {"defaults": others | sides, "inputs": inputs}


def left_of(picture: Image.Image, *, height: int, width: int) -> Image.Image:
    """Return the largest part of a picture's middle that has these proportions."""
    wide = min(picture.width, round(picture.height * width / height))
    tall = min(picture.height, round(picture.width * height / width))
    left, top = (picture.width - wide) // 2, (picture.height - tall) // 2
    return picture.crop((left, top, left + wide, top + tall))


@pytest.mark.parametrize("case", long_but(CASES, ("wan_i2v", "area"), ("flux_kontext", "crop")))
def test_clips_are_those_of_plain_calls_on_what_is_left_of_their_pictures(
    case: tuple[str, str | None], tmp_path: Path
) -> None:
    model, fit = case
    values = job(tmp_path, model, fit=fit)
    output, row_ids = render_here(values, is_mixed=True)
    pipe = DiffusionPipeline.from_pretrained(tiny(model))
    shapes = set()
    for seed, (name, row_id) in enumerate(zip(SIZES, row_ids, strict=True)):
        record = find_record(Store(output), row_id)
        arguments = json.loads(record.arguments)
        assert arguments["image"]["fit"] == (fit or ("area" if name == "square.png" else "crop"))
        size = {side: arguments[side] for side in ("height", "width")}
        shapes.add((*size.values(),))
        image = left_of(load_image(str(tmp_path / name)), **size)
        given = {**values["defaults"], **size, "prompt": "a red ball", "image": image}
        np.random.seed(seed)
        torch.manual_seed(seed)
        made = pipe(**given, generator=torch.Generator("cpu").manual_seed(seed), output_type="np")
        assert record.frames_sha256 == frames_sha256(to_frames(made)), name
    assert len(shapes) == (3 if fit == "area" else 1)
    assert replay(output, row_ids[0]).is_equal
    for row_id in (row_ids[0], row_ids[-1]):
        assert run_script(replay_script(output, row_id)).startswith("the same frames: ")
    Image.new("RGB", (9, 9)).save(tmp_path / "wide.png")
    with pytest.raises(InputError, match=r"wide\.png.* has changed"):
        replay_script(output, row_ids[0])


def test_an_output_begun_without_fit_goes_on_as_it_was_begun(tmp_path: Path) -> None:
    values = job(tmp_path, "wan_i2v", fit="stretch")
    render_here(values, is_mixed=True)
    claim = tmp_path / "out" / "job.json"
    written = json.loads(claim.read_text())
    assert written["job"]["inputs"].pop("fit") == "stretch"
    claim.write_text(json.dumps(written))

    def planned(**inputs: Any) -> Any:
        return command("plan", write_job(tmp_path / "job.yaml", values | {"inputs": inputs}), "--json")

    begun = planned()
    plan = json.loads(begun.stdout)
    assert plan["counts"]["done"] == 4
    assert plan["fitted"] == {"stretch": {"fit": "stretch", "num_pictures": 4, "num_different": 3}}
    assert "note: pictures are stretched to their row's size" in begun.stderr
    changed = planned(fit="crop")
    assert changed.exit_code == 2
    assert "inputs.fit: stretch there, crop here" in changed.stderr


def test_plan_says_what_is_done_to_how_many_pictures(tmp_path: Path) -> None:
    values = job(tmp_path, "wan_i2v")
    ended = command("plan", write_job(tmp_path / "job.yaml", values))
    assert "fit: 3 of 4 pictures differ from the size in proportions, by more than 5 %" in ended.stdout
    assert (
        json.loads(command("plan", tmp_path / "job.yaml", "--json").stdout)["fitted"]["crop"]["num_different"]
        == 3
    )
    of_text = values | {"model": str(tiny("wan")), "inputs": {"fit": "pad"}}
    refused = command("plan", write_job(tmp_path / "job.yaml", of_text), exits=2)
    assert "inputs.fit is 'pad', but WanPipeline does not resize pictures" in refused.stderr
