"""The picture shows three frames of each clip in even cards, and never a box for a letter it lacks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw

import framefleet
from framefleet import JobError, Store
from framefleet.api.clips import Frames, decode
from framefleet.plugins.pages.sheet.choice import ClipChoice, chosen_of
from framefleet.plugins.pictures import lettering
from framefleet.plugins.pictures.contact_sheet import MARGIN, contact_sheet
from framefleet.plugins.pictures.lettering import NO_CHARACTER, draw_line, is_within_sign, length_of, runs_of
from tests.commands import command
from tests.outputs import change_records
from tests.shapes_output import output_of

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
PROMPT = "一只猫坐在月球上"


def clip(num_frames: int = 3, height: int = 30, width: int = 40) -> Frames:
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    for index in range(num_frames):
        frames[index] = COLOURS[index * len(COLOURS) // num_frames]
    return frames


@pytest.fixture
def only_latin(monkeypatch: pytest.MonkeyPatch) -> None:
    none = {"font_paths": lambda: (None,), "EMOJI": Path("nowhere"), "of_system": lambda character: ""}
    for name, value in none.items():
        monkeypatch.setattr(lettering, name, value)


@pytest.fixture
def only_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without fonts of its own."""
    shipped = (None, *lettering._cjk_paths(), str(lettering.EMOJI))
    for name, value in {"font_paths": lambda: shipped, "of_system": lambda character: ""}.items():
        monkeypatch.setattr(lettering, name, value)


def test_cards_of_three_frames_stand_in_rows_of_even_size() -> None:
    one = contact_sheet([(clip(9), "a fox")], columns=3)
    assert set(COLOURS) <= {colour for _, colour in one.getcolors(1_000_000) or []}
    seven = contact_sheet([(clip(), "a fox")] * 7, columns=3)
    card_width, card_height = one.width - 2 * MARGIN, one.height - 2 * MARGIN
    assert seven.size == (3 * (card_width + MARGIN) + MARGIN, 3 * (card_height + MARGIN) + MARGIN)
    assert contact_sheet([]).size[1] == MARGIN


@pytest.mark.parametrize("shape", [(1, 48, 48), (2, 30, 40), (9, 64, 36), (3, 1, 200), (3, 200, 1)])
def test_any_clip_finds_its_place(shape: tuple[int, int, int]) -> None:
    sheet = contact_sheet([(clip(*shape), "a fox"), (clip(), "another")], columns=2, tile_width=300)
    assert sheet.width == 2 * (300 + MARGIN) + MARGIN


def test_a_long_prompt_takes_two_lines_and_no_more() -> None:
    short, long, longer = (
        contact_sheet([(clip(), "a fox in the snow " * times)]).height for times in (1, 5, 500)
    )
    assert short < long == longer


def test_a_title_that_no_font_can_draw_leaves_only_the_details(only_latin: None) -> None:
    with_title = contact_sheet([(clip(), f"{PROMPT}\nrow 3fa9 seed 7")])
    without = contact_sheet([(clip(), "\nrow 3fa9 seed 7")])
    assert with_title.tobytes() == without.tobytes()
    assert "".join(run.text for run in runs_of("a fox 🦊 runs", 16)) == "a fox  runs"
    assert runs_of("the integral ∮ of 7", 16) == [], "a sign that matters is never dropped"


@pytest.mark.parametrize(
    "text",
    [
        *(PROMPT, "月面に座る猫", "달에 앉은 고양이", "a fox 🦊", "café Ωμέγα жук"),
        "👨\u200d👩\u200d👧 🏳️\u200d🌈 👍🏽 🇯🇵 1️⃣",
    ],
)
def test_captions_look_like_what_they_say_without_fonts_of_the_machine(only_shipped: None, text: str) -> None:
    runs = runs_of(text, 20)
    assert "".join(run.text for run in runs) == text
    for run in runs:
        missing = run.font.getmask(NO_CHARACTER)
        for character in run.text.replace(" ", "").replace("\u200d", "").replace("\ufe0f", ""):
            drawn = run.font.getmask(character)
            assert (drawn.size, bytes(drawn)) != (missing.size, bytes(missing)), character


def test_chinese_signs_are_drawn_as_the_language_of_the_text_writes_them(only_shipped: None) -> None:
    chinese, japanese = (drawn("直骨"), drawn("直骨の")[:, : drawn("直骨").shape[1]])
    assert not np.array_equal(chinese, japanese)


def test_a_family_is_one_sign_and_never_broken() -> None:
    family = "👨\u200d👩\u200d👧"
    assert length_of(family, 20) < 2 * length_of("👨", 20)
    assert all(is_within_sign(family, place) for place in range(1, len(family)))
    assert not is_within_sign(family, 0)


def test_huge_captions_cost_no_time() -> None:
    assert contact_sheet([(clip(), "漢🦊 " * 300_000)]).width > 0


def drawn(text: str) -> np.ndarray:
    image = Image.new("L", (round(length_of("直骨", 40)), 60))
    draw_line(ImageDraw.Draw(image), (0, 0), text, size=40, fill=255)
    return np.asarray(image)


THAI = "กขค"  # of a block whose first code point is no character
OTHERS = {"latin": "abc", "thai": THAI, "lao": "ກຂຄ"}


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a font for each of these scripts, and no others; returns their folder."""
    if not shutil.which("fc-match"):
        pytest.skip("needs fontconfig")
    for name, letters in OTHERS.items():
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for corner in ((0, 900), (900, 900), (900, 0)):
            pen.lineTo(corner)
        pen.closePath()
        square, empty = pen.glyph(), TTGlyphPen(None).glyph()
        names = [f"letter{number}" for number in range(len(letters))]
        font = FontBuilder(1000)
        font.setupGlyphOrder([".notdef", *names])
        font.setupCharacterMap(dict(zip(map(ord, letters), names, strict=True)))
        font.setupGlyf({".notdef": empty, **dict.fromkeys(names, square)})
        font.setupHorizontalMetrics(dict.fromkeys([".notdef", *names], (1000, 0)))
        font.setupHorizontalHeader(ascent=900, descent=-100)
        font.setupNameTable({"familyName": name, "styleName": "Regular"})
        font.setupOS2()
        font.setupPost()
        font.save(tmp_path / f"{name}.ttf")
    (tmp_path / "fonts.conf").write_text(
        f"<fontconfig><dir>{tmp_path}</dir><cachedir>{tmp_path / 'cache'}</cachedir></fontconfig>"
    )
    monkeypatch.setenv("FONTCONFIG_FILE", str(tmp_path / "fonts.conf"))

    lettering._ask_fontconfig.cache_clear()
    return tmp_path


def test_a_script_whose_block_begins_with_no_character_is_drawn(system: Path) -> None:
    for name, letters in OTHERS.items():
        fonts = [lettering.of_system(letter) for letter in letters]
        assert fonts == [str(system / f"{name}.ttf")] * len(letters)
    assert not lettering.of_system("ฮ"), "no font has it"


PROMPTS = ["a red ball 🦊", "一个黄色的星星"]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two prompts, each at three guidance scales."""
    look = {"shape": "ball", "color": "red", "background": "blue", "motion": "left", "language": "en"}
    size = {"num_frames": 9, "height": 64, "width": 64}
    rows: list[dict[str, object]] = [
        {**look, **size, "prompt": prompt, "guidance_scale": scale, "num_inference_steps": 4}
        for prompt in PROMPTS
        for scale in (7.0, 1.0, 2.5)
    ]
    folder = tmp_path_factory.mktemp("output")
    output_of(folder, rows)
    Store(str(folder)).write("job.json", json.dumps({"job": {}}).encode())
    return folder


def test_clips_stand_in_the_order_of_the_table(output: Path) -> None:
    chosen = chosen_of(Store(str(output)), ClipChoice(limit=4))
    assert [place.record["row_id"] for place in chosen.clips] == [f"{number:032x}" for number in range(4)]
    assert [(place.row, place.column) for place in chosen.clips] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert chosen.num_found == 6


def test_columns_of_records_are_the_sides_numbers_by_size(output: Path) -> None:
    scales = ["guidance_scale 1", "guidance_scale 2.5", "guidance_scale 7"]
    chosen = chosen_of(Store(str(output)), ClipChoice(rows="prompt", columns="guidance_scale"))
    assert (chosen.row_names, chosen.column_names) == (PROMPTS, scales)
    assert [(place.row, place.column) for place in chosen.clips] == [
        (r, c) for r in (0, 1) for c in (0, 1, 2)
    ]
    chosen = chosen_of(Store(str(output)), ClipChoice(rows="guidance_scale"))
    assert (chosen.row_names, chosen.column_names, len(chosen.clips)) == (scales, [], 6)


def test_clips_for_which_there_is_no_room_are_counted(output: Path, tmp_path: Path) -> None:
    for columns, limit, num_shown, num_more in (("shape", 24, 2, 4), ("guidance_scale", 3, 3, 0)):
        choice = ClipChoice(rows="prompt", columns=columns, limit=limit)
        chosen = chosen_of(Store(str(output)), choice)
        assert (len(chosen.clips), chosen.num_more, chosen.num_found) == (num_shown, num_more, 6)
    drawn = command("sheet", output, "-o", tmp_path / "a.png", "--rows", "prompt", "--limit", "3")
    assert "shown: 3 of 6 clips: the grid has more cells than --limit" in drawn.stderr


def test_an_unknown_column_is_answered_with_few_names(output: Path, tmp_path: Path) -> None:
    refused = command("sheet", output, "-o", tmp_path / "a.png", "--rows", "guidance")
    assert refused.exit_code == 2 and "did you mean 'guidance_scale'?" in refused.stderr
    assert not any(tmp_path.iterdir())
    refused = command("sheet", output, "-o", tmp_path / "a.png", "--rows", "zz")
    assert refused.stderr.count(",") < 30 and "..." in refused.stderr


def test_a_condition_chooses_records(output: Path) -> None:
    chosen = chosen_of(
        Store(str(output)), ClipChoice(where="seed >= 0 AND row_indices[1] >= 0 AND shape = 'ball'")
    )
    assert len(chosen.clips) == 6
    with pytest.raises(JobError, match="has no clip where"):
        chosen_of(Store(str(output)), ClipChoice(where="shape = 'star'"))
    with pytest.raises(JobError, match="no column"):
        chosen_of(Store(str(output)), ClipChoice(where="shap = 'star'"))


@pytest.mark.parametrize("name", ["sheet.png", "sheet.jpg", "sheet.webp"])
def test_a_sheet_is_written(output: Path, tmp_path: Path, name: str) -> None:
    command("sheet", output, "-o", tmp_path / name, "--tile", "150", exits=0)
    with Image.open(tmp_path / name) as image:
        assert image.width > 3 * 150
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["grid.mp4", "grid.mkv", "grid.webp"])
def test_a_grid_plays_all_clips_in_step(output: Path, tmp_path: Path, name: str) -> None:
    drawn = framefleet.grid(
        str(output), tmp_path / name, rows="prompt", columns="guidance_scale", tile=64, captions=["seed"]
    )
    assert drawn.num_clips == 6
    if name.endswith(".webp"):
        with Image.open(tmp_path / name) as image:
            assert image.n_frames == 9
    else:
        assert len(decode((tmp_path / name).read_bytes())) == 9


def test_a_grid_that_is_too_fast_for_its_format_is_refused_before_clips_are_read(
    output: Path, tmp_path: Path
) -> None:
    fast = shutil.copytree(output, tmp_path / "fast")
    change_records(fast, lambda table: {"fps": [60.0] * len(table)})
    read: list[object] = []
    with pytest.raises(JobError, match="gif at 60 fps") as refused:
        framefleet.grid(str(fast), tmp_path / "grid.gif", on_progress=read.append)
    assert "write an .mp4 file" in refused.value.fix and not read


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 pictures, each 32 times as wide as high."""
    look = {"shape": "ball", "color": "red", "background": "blue", "motion": "left", "language": "en"}
    size = {"num_frames": 1, "height": 16, "width": 512}
    folder = output_of(tmp_path_factory.mktemp("wide"), [{**look, **size, "prompt": "a"} for _ in range(32)])
    Store(str(folder)).write("job.json", json.dumps({"job": {}}).encode())
    return folder


@pytest.mark.parametrize(
    ("name", "limit", "other"),
    [
        ("sheet.webp", 8, ".png"),
        ("sheet.jpg", 32, ".png"),
        ("grid.webp", 8, ".mkv"),
        ("grid.mp4", 8, ".mkv"),
        ("grid.gif", 32, ".mkv"),
    ],
)
def test_a_picture_that_its_format_cannot_hold_is_refused(
    wide: Path, tmp_path: Path, name: str, limit: int, other: str
) -> None:
    draw = framefleet.sheet if name.startswith("sheet") else framefleet.grid
    with pytest.raises(JobError, match=r"would have [\d,]+ x [\d,]+ pixels, but a side of") as refused:
        draw(str(wide), tmp_path / name, columns="row_id", limit=limit, tile=2048)
    assert "--limit" in refused.value.fix and refused.value.fix.endswith(f"use {other}")
    draw(str(wide), (tmp_path / name).with_suffix(other), columns="row_id", limit=limit, tile=2048)


def test_a_clip_that_is_gone_leaves_its_place(
    output: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(output, moved)
    (gone := next(moved.glob("clips/00/*.mkv"))).unlink()
    steps: list[Any] = []
    drawn = framefleet.sheet(str(moved), tmp_path / "sheet.png", tile=64, on_progress=steps.append)
    assert (drawn.num_clips, steps[-1].done, steps[-1].total) == (6, 5, 6)
    assert f"{gone.name} is gone" in caplog.text


@pytest.mark.parametrize(
    ("to", "problem"),
    [("sheet.bmp", "use one of .png"), ("sheet", "use one of"), ("nowhere/sheet.png", "is not a folder")],
)
def test_what_cannot_be_written_is_told_before_anything_is_read(
    output: Path, tmp_path: Path, to: str, problem: str
) -> None:
    assert problem in command("sheet", output, "-o", tmp_path / to, exits=2).stderr
