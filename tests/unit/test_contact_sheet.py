"""The picture shows three frames of each clip in even cards, and never a box for a letter it lacks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw

from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.plugins.pictures import lettering
from framefleet.plugins.pictures.contact_sheet import MARGIN, contact_sheet
from framefleet.plugins.pictures.lettering import NO_CHARACTER, draw_line, is_within_sign, length_of, runs_of

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
