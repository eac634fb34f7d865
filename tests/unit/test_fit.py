"""What becomes of pictures whose proportions are not those of the clip that they start."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from framefleet.pipeline.errors import InputError, Refused
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.rows.inputs.arguments import open_arguments
from framefleet.pipeline.rows.inputs.fit import Fitted
from framefleet.pipeline.rows.inputs.pictures import Described
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow, Finder, InvalidRow
from tests.configs import SD, WAN, write_model
from tests.pictures import clip

LEARNED = WAN | {
    "scheduler": {"_class_name": "CogVideoXDDIMScheduler"},
    "transformer": {"sample_height": 60, "sample_width": 90, "use_learned_positional_embeddings": True},
}
FLUX = SD | {"transformer": {"in_channels": 64}}


class Sizes(Finder):
    """Finds a picture or video of any size that a cell names, as "64x32" (height x width)."""

    def find(self, uri: str, kind: str) -> Described | Refused:
        height, width = map(int, uri.split("x"))
        return Described(sha256=uri, height=height, width=width, num_frames=9 if kind == "video" else 1)


def spec_of(folder: Path, class_name: str, configs: dict[str, dict[str, Any]]) -> PipelineSpec:
    return inspect_model(write_model(folder, class_name, configs))


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> PipelineSpec:
    return spec_of(tmp_path_factory.mktemp("wan"), "WanImageToVideoPipeline", WAN)


def read(spec: PipelineSpec, cells: dict[str, Any], **job: Any) -> CheckedRow | InvalidRow:
    batch = pa.RecordBatch.from_pylist([{"prompt": "p", **cells}])
    (row,) = plan_rows(batch.schema, spec, finder=Sizes(), **job).rows(0, batch)
    return row


def outcome(row: CheckedRow | InvalidRow, name: str = "image") -> tuple[int, int, str]:
    assert isinstance(row, CheckedRow), row
    arguments = row.request.arguments
    assert arguments[name].keys() <= {"uri", "sha256", "num_frames", "fit"}
    return arguments["height"], arguments["width"], arguments[name].get("fit", "stretch")


@pytest.mark.parametrize(
    ("cells", "job", "expected"),
    [
        ({"image": "400x800"}, {}, (448, 896, "area")),
        ({"image": "800x400"}, {}, (896, 448, "area")),
        ({"image": "50x50"}, {}, (624, 624, "area")),
        ({"image": "960x1664"}, {}, (480, 832, "area")),
        ({"image": "1x99999"}, {}, (480, 832, "crop")),  # no side may be as long
        ({"image": "400x800", "height": 480}, {}, (480, 832, "crop")),
        ({"image": "400x800"}, {"defaults": {"height": 480, "width": 480}}, (480, 480, "crop")),
        ({"image": "400x800"}, {"overrides": {"width": 480}}, (480, 480, "crop")),
        ({"image": "400x800"}, {"fit": "pad"}, (480, 832, "pad")),
        ({"image": "400x800"}, {"fit": "stretch"}, (480, 832, "stretch")),
        ({"image": "800x400", "height": 64, "width": 128}, {"fit": "area"}, (128, 64, "area")),
        ({}, {"defaults": {"image": "800x400"}}, (896, 448, "area")),
        ({"image": "800x400", "last_image": "400x800"}, {}, (896, 448, "area")),  # the first counts
    ],
)
def test_a_row_takes_the_proportions_of_its_picture_or_the_picture_those_of_the_row(
    cells: dict[str, Any], job: dict[str, Any], expected: tuple[int, int, str], wan: PipelineSpec
) -> None:
    assert outcome(read(wan, cells, **{"fit": None, **job})) == expected


@pytest.mark.parametrize(
    ("class_name", "configs", "cells", "expected"),
    [
        ("CogVideoXImageToVideoPipeline", LEARNED, {"image": "400x800"}, (480, 720, "crop")),  # the only size
        ("WanVideoToVideoPipeline", WAN, {"video": "800x400"}, (896, 448, "area")),
        (
            "FluxControlImg2ImgPipeline",
            FLUX,
            {"image": "64x32", "control_image": "64x64"},
            (1456, 720, "area"),
        ),
        ("FluxKontextPipeline", FLUX, {"image": "64x64", "height": 512}, (512, 1024, "crop")),
        ("Flux2Pipeline", FLUX, {"image": "64x32"}, (1456, 720, "area")),
        ("Flux2Pipeline", FLUX, {"image": "64x32", "height": 512}, (512, 1024, "stretch")),  # it refers to it
    ],
)
def test_models_differ_in_what_they_take(
    class_name: str, configs: Any, cells: dict[str, Any], expected: tuple[int, int, str], tmp_path: Path
) -> None:
    name = "video" if "video" in cells else "image"
    assert outcome(read(spec_of(tmp_path, class_name, configs), cells, fit=None), name) == expected


def test_rows_without_pictures_and_pipelines_without_sizes_are_as_before(
    tmp_path: Path, wan: PipelineSpec
) -> None:
    of_text = spec_of(tmp_path / "text", "WanPipeline", WAN)
    assert read(of_text, {}, fit=None) == read(of_text, {})
    unsized = spec_of(tmp_path / "sd", "StableDiffusionImg2ImgPipeline", SD)
    assert read(unsized, {"image": "64x32"}, fit=None) == read(unsized, {"image": "64x32"})
    listed = spec_of(tmp_path / "flux2", "Flux2Pipeline", FLUX)
    images = {"image": ["64x32", "64x64"]}
    assert read(listed, images, fit=None) == read(listed, images)


def test_what_differs_is_counted(wan: PipelineSpec) -> None:
    batch = pa.RecordBatch.from_pylist(
        [
            {"prompt": "p", "image": image, "last_image": "480x832"}
            for image in ("480x832", "480x860", "480x880")
        ]
    )
    rows = plan_rows(batch.schema, wan, finder=Sizes(), fit="crop").rows(0, batch)
    fitted = [row.fitted for row in rows if isinstance(row, CheckedRow)]
    assert fitted == [Fitted(fit="crop", num_pictures=2, num_different=count) for count in (0, 0, 1)]


@pytest.mark.parametrize(
    ("class_name", "configs", "fit", "image", "problem"),
    [
        ("WanImageToVideoPipeline", WAN, "pad", "8000x8", "with bars it is 8000 x 13867"),
        ("WanImageToVideoPipeline", WAN, "area", "1x99999", "a side may have at most 16,384 pixels"),
        (
            "CogVideoXImageToVideoPipeline",
            LEARNED,
            "area",
            "40x80",
            "the model only learned 480 x 720 pixels",
        ),
    ],
)
def test_a_picture_that_cannot_be_fitted_is_refused(
    class_name: str, configs: Any, fit: Any, image: str, problem: str, tmp_path: Path
) -> None:
    row = read(spec_of(tmp_path, class_name, configs), {"image": image}, fit=fit)
    assert isinstance(row, InvalidRow)
    message, fix = row.messages()[0]
    assert message.startswith(f"row 0: image is '{image}', but ") and problem in message
    assert fix == "set `inputs.fit` to crop"


def opened(pictures: dict[str, Any], fit: Any, **size: Any) -> dict[str, Any]:
    """Open arguments that hold PNGs of these pictures."""
    files = {}
    for name, picture in pictures.items():
        file = io.BytesIO()
        picture.save(file, "PNG", exif=picture.getexif())
        files[name] = file.getvalue()
    arguments: dict[str, Any] = {
        name: {"uri": name, "sha256": hashlib.sha256(content).hexdigest(), "fit": fit}
        for name, content in files.items()
    }
    return open_arguments(arguments | size, files.__getitem__)


WIDE = clip(0, num_frames=1)[0].resize((60, 30))


@pytest.mark.parametrize(
    ("fit", "size", "box"),
    [
        ("crop", (16, 16), (15, 0, 45, 30)),
        ("area", (64, 32), (22, 0, 37, 30)),
        ("crop", (15, 30), (0, 0, 60, 30)),
        ("pad", (16, 16), (0, -15, 60, 45)),
        ("pad", (16, 64), (-30, 0, 90, 30)),
        ("stretch", (16, 16), (0, 0, 60, 30)),
    ],
)
def test_a_picture_is_cropped_in_its_middle_or_gets_black_bars(
    fit: str, size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    expected = Image.new("RGB", (box[2] - box[0], box[3] - box[1]))
    expected.paste(WIDE, (-box[0], -box[1]))
    assert opened({"image": WIDE}, fit, height=size[0], width=size[1])["image"] == expected


def test_a_picture_counts_as_it_is_seen_and_a_mask_lies_over_it() -> None:
    turned = WIDE.copy()
    turned.getexif()[0x0112] = 6  # clockwise by 90 degrees
    upright = WIDE.transpose(Image.Transpose.ROTATE_270)
    mask = upright.resize((10, 20))
    values = opened({"mask_image": mask, "image": turned}, "crop", height=16, width=32)
    assert values["image"].tobytes() == upright.crop((0, 22, 30, 37)).tobytes()
    assert values["mask_image"].tobytes() == mask.crop((0, 7, 10, 12)).tobytes()
    values = opened({"mask_image": WIDE, "image": upright}, "crop", height=16, width=16)
    assert values["image"] == upright.crop((0, 15, 30, 45))
    assert values["mask_image"] == WIDE.crop((0, 8, 60, 23))  # a quarter is left out above, and below


@pytest.mark.parametrize(
    ("fit", "size"),
    [("zoom", {"height": 16, "width": 16}), (["pad"], {"height": 16, "width": 16}), ("pad", {"height": 16})]
    + [("crop", {"height": side, "width": 16}) for side in (0, -16, "16", None)]
    + [("pad", {"height": 16_000, "width": 1 << 40})],
)
def test_what_no_checked_row_says_is_refused(fit: Any, size: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="image is 'image', but"):
        opened({"image": WIDE}, fit, **size)
