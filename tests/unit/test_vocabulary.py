"""What the demo says of words that its model was never told."""

from __future__ import annotations

import pytest

from framefleet.plugins.demo.vocabulary import hint_about, unknown_words
from tools.shapes.scenes import all_scenes, captions


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
