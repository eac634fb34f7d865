"""The picture shows three frames of each clip in even cards, and never a box for a letter it lacks."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.media import fonts
from framefleet.pipeline.outputs.media.contact_sheet import MARGIN, contact_sheet, moving_sheet
from framefleet.pipeline.outputs.media.fonts import font_for

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
PROMPT = "一只猫坐在月球上"


def clip(num_frames: int = 3, height: int = 30, width: int = 40) -> Frames:
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    for index in range(num_frames):
        frames[index] = COLOURS[index * len(COLOURS) // num_frames]
    return frames


def colours_of(sheet: Image.Image) -> set[object]:
    return {colour for _, colour in sheet.getcolors(1_000_000) or []}


@pytest.fixture
def only_latin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "font_paths", lambda: (None,))


def test_a_card_shows_the_first_the_middle_and_the_last_frame() -> None:
    sheet = contact_sheet([(clip(9), "a fox")])
    assert set(COLOURS) <= colours_of(sheet)


def test_cards_stand_in_rows_of_even_size() -> None:
    one = contact_sheet([(clip(), "a fox")], columns=3)
    seven = contact_sheet([(clip(), "a fox")] * 7, columns=3)
    card_width, card_height = one.width - 2 * MARGIN, one.height - 2 * MARGIN
    assert seven.size == (3 * (card_width + MARGIN) + MARGIN, 3 * (card_height + MARGIN) + MARGIN)


@pytest.mark.parametrize("shape", [(1, 48, 48), (2, 30, 40), (9, 64, 36), (3, 1, 200), (3, 200, 1)])
def test_any_clip_finds_its_place(shape: tuple[int, int, int]) -> None:
    sheet = contact_sheet([(clip(*shape), "a fox"), (clip(), "another")], columns=2, tile_width=300)
    assert sheet.width == 2 * (300 + MARGIN) + MARGIN


def test_no_clips_make_an_empty_sheet() -> None:
    assert contact_sheet([]).size[1] == MARGIN
    assert moving_sheet([]) == []


def test_a_moving_sheet_plays_all_clips_and_shorter_ones_wait_at_their_end() -> None:
    pictures = moving_sheet([(clip(9), "a fox"), (clip(3), "a hare")], columns=2, tile_width=100)
    assert len(pictures) == 9
    assert len({picture.size for picture in pictures}) == 1
    assert [picture.getpixel((MARGIN + 50, MARGIN + 30)) for picture in pictures[::4]] == COLOURS
    assert pictures[2].getpixel((2 * MARGIN + 150, MARGIN + 30)) == COLOURS[-1]
    assert pictures[8].getpixel((2 * MARGIN + 150, MARGIN + 30)) == COLOURS[-1]


def test_a_long_prompt_takes_two_lines_and_no_more() -> None:
    short, long, longer = (
        contact_sheet([(clip(), "a fox in the snow " * times)]).height for times in (1, 5, 500)
    )
    assert short < long == longer


def test_a_title_that_no_font_can_draw_leaves_only_the_details(only_latin: None) -> None:
    with_title = contact_sheet([(clip(), f"{PROMPT}\nrow 3fa9 seed 7")])
    without = contact_sheet([(clip(), "\nrow 3fa9 seed 7")])
    assert with_title.tobytes() == without.tobytes()


def test_emoji_that_no_font_can_draw_are_left_out(only_latin: None) -> None:
    drawable = font_for("a fox 🦊 runs", 16)
    assert drawable is not None
    assert drawable[1] == "a fox  runs"


def test_a_sign_that_matters_is_never_dropped(only_latin: None) -> None:
    assert font_for("the integral ∮ of 7", 16) is None


def test_chinese_is_drawn_where_a_chinese_font_is_installed() -> None:
    drawable = font_for(PROMPT, 16)
    if drawable is None:
        pytest.skip("no font with Chinese on this machine")
    assert drawable[1] == PROMPT
