"""Text encoders trained on pairs: they learn which texts mean the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from framefleet import ModelError, load_model
from framefleet.plugins.train.task import NO_FRAMES, Prepared, TrainingRow
from framefleet.plugins.train.text_encoder import TextEncoderTask
from tests.tiny import tiny
from tests.training_jobs import descend

PAIRS = [
    ("red", "红色"),
    ("blue", "蓝色的"),
    ("a green ball", "绿"),
    ("white", "白色"),
    ("black star", "黑星"),
]


def task_of(name: str) -> tuple[TextEncoderTask, Any]:
    pipe = load_model(tiny(name), dtype="fp32").pipe
    return TextEncoderTask(pipe), pipe.text_encoder.requires_grad_(True)


def row(index: int, texts: dict[str, str]) -> TrainingRow:
    return TrainingRow(index=index, video=None, sha256=None, arguments=texts, bucket=NO_FRAMES)


def prepared(task: TextEncoderTask, pairs: list[tuple[str, str]] = PAIRS) -> list[Prepared]:
    return [
        task.prepare(row(number, {"prompt": prompt, "paraphrase": paraphrase}), None)
        for number, (prompt, paraphrase) in enumerate(pairs)
    ]


@pytest.mark.parametrize("name", ["wan", "sd"])
def test_pairs_are_told_apart_after_training(name: str) -> None:
    task, encoder = task_of(name)
    first, *_, last = descend(task, prepared(task), encoder.parameters(), steps=20)
    assert last < 0.1 < 1 < first


def test_padding_of_longer_neighbours_changes_nothing() -> None:
    task, encoder = task_of("wan")
    encoder.eval()
    with torch.no_grad():
        alone = task._encode([prepared(task)[0]["prompt"]])
        beside = task._encode([row["prompt"] for row in prepared(task)])
    torch.testing.assert_close(alone[0], beside[0])


def test_equal_texts_of_a_batch_are_not_each_others_negatives() -> None:
    task, _ = task_of("wan")
    for other in (PAIRS[0], (PAIRS[0][0], "红"), ("crimson", PAIRS[0][1])):
        loss = task.loss(prepared(task, [PAIRS[0], other]), torch.Generator())
        assert loss.item() == pytest.approx(0.0, abs=1e-6)  # nothing to be told from
    assert task.loss(prepared(task, PAIRS[:2]), torch.Generator()).item() > 0.1


def test_a_contrast_is_a_negative_of_every_row_but_those_whose_text_it_is() -> None:
    task, _ = task_of("wan")
    pairs = [("a b", "一"), ("b a", "二")]
    plain = prepared(task, pairs)
    contrast = task.prepare(row(7, {"prompt": "x", "paraphrase": "y", "contrast": "b a"}), None)["contrast"]
    with_contrast = [plain[0] | {"contrast": contrast}, plain[1]]

    def loss(batch: list[Prepared]) -> float:
        return task.loss(batch, torch.Generator()).item()

    assert loss([plain[0]]) == pytest.approx(0.0, abs=1e-6) and loss([with_contrast[0]]) > 0.1
    assert loss(with_contrast) > loss(plain)
    assert loss([plain[1] | {"contrast": contrast}]) == pytest.approx(0.0, abs=1e-6)  # its own words


def test_a_pipeline_without_a_text_encoder_is_refused() -> None:
    class Bare:
        pass

    with pytest.raises(ModelError, match="Bare has no text encoder"):
        TextEncoderTask(Bare())
