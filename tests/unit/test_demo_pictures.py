"""What a demo shows of its clips, and says of words that its model was never told."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from framefleet.plugins.demo.demo import draw_pictures
from framefleet.plugins.demo.prepare import Size
from framefleet.plugins.demo.vocabulary import hint_about, unknown_words
from framefleet.plugins.pictures import lettering
from tests.commands import command
from tests.shapes_output import output_of
from tools.shapes.prompts import prompt_rows
from tools.shapes.scenes import SIZE, all_scenes, captions


def test_clips_are_drawn_also_where_the_output_was_moved_and_one_that_is_gone_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert draw_pictures(tmp_path) == {} and not list(tmp_path.iterdir())  # of no clips
    rows = prompt_rows(num_scenes=2, languages=["en"], guidance_scales=[4.0], sizes=[SIZE, Size(17, 64, 96)])
    output_of(tmp_path / "first", rows)
    (tmp_path / "first").rename(tmp_path / "moved")
    places = draw_pictures(tmp_path / "moved")
    with Image.open(places["animation"]) as animation:
        assert animation.n_frames == 17
    with Image.open(places["contact sheet"]) as sheet:
        assert len(sheet.getcolors(sheet.width * sheet.height)) > 20
    min((tmp_path / "moved/clips").rglob("*.mkv")).unlink()
    assert draw_pictures(tmp_path / "moved")["contact sheet"].exists()
    assert any("is gone, but has a record" in said for said in caplog.messages)


def test_titles_that_no_font_here_draws_are_told_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Pillow's own font, for Latin letters
    for name, value in {"font_paths": lambda: (None,), "of_system": lambda character: ""}.items():
        monkeypatch.setattr(lettering, name, value)
    output_of(tmp_path, prompt_rows(num_scenes=1, languages=["en", "zh"], guidance_scales=[4.0]))
    draw_pictures(tmp_path)
    (said,) = caplog.messages
    assert said.startswith("titles with letters that no font of this machine has: 1,")
    assert "fonts-noto-core" in said


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (("--size", "9x64", "a red ball"), "'9x64' is not frames, height and width"),
        (("--size", "257x64x64", "a red ball"), "num_frames is 257"),
        (("--size", "9x64x144", "a red ball"), "width is 144"),
        (("--size", "9x64x64"), "is for your own prompts"),
        (("a \udcff ball",), r"'a \udcff ball' has bytes that are not UTF-8"),
        (("球" * 22,), "has 66 bytes, but the model reads 63"),
        ((__file__,), "is a file, and the demo renders prompts"),
        (("a", "red", "ball"), "put each prompt in quotes: framefleet demo 'a red ball'"),
    ],
)
def test_what_the_demo_does_not_render_is_refused(
    asked: tuple[str, ...], problem: str, tmp_path: Path
) -> None:
    assert problem in " ".join(command("demo", "--output", tmp_path / "new", *asked, exits=2).stderr.split())
    assert not (tmp_path / "new/prompts.csv").exists()


def test_places_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "old").mkdir()
    (tmp_path / "old/prompts.csv").write_bytes("prompt\n球\n".encode("gbk"))
    for output, problem in (("file", "cannot be a folder"), ("old", "is not UTF-8")):
        ended = command("demo", "--output", tmp_path / output, "a red ball", exits=2)
        assert problem in " ".join(ended.stderr.split())


def test_no_caption_of_its_training_has_words_that_it_does_not_know() -> None:
    told = [text for seed, scene in enumerate(all_scenes()) for text in captions(scene, seed=seed).values()]
    assert not {word for text in told for word in unknown_words(text)}


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("A red dragon flies.", ["dragon", "flies"]),
        ("一只猫在蓝色背景上弹跳", ["一只猫"]),
        ("a pink cross grows on 红色", ["pink", "cross"]),  # what only fine-tuning teaches
    ],
)
def test_other_words_are_found(prompt: str, words: list[str]) -> None:
    assert unknown_words(prompt) == words
    assert "gren (green?); it knows ball, square" in (hint_about("a gren ball bounces on blue") or "")
    assert hint_about("a green ball bounces on blue") is None
