"""Which waiting rows one call renders together, by the lengths of their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from framefleet.pipeline.render.joint_rows import JointRows
from framefleet.pipeline.render.row_queue import RenderRow
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.prompt_lengths import PromptReading


class Words:
    """Prompts with a token for each word."""

    def reading(self, request: Request) -> PromptReading:
        return PromptReading(num_tokens=len(request.arguments["prompt"].split()), limit=None, is_cut=False)


class Agreeable(JointRows):
    """Each trial succeeds; they are noted, by the lengths of their prompts."""

    def __init__(self) -> None:
        super().__init__(Words(), lambda rows, tasks: None)  # type: ignore[arg-type]
        self.trials: list[list[int]] = []

    def _tried(self, rows: Sequence[RenderRow]) -> Any:
        self.trials.append(lengths(rows))
        return {("transformer", None, 1): [1]}


def lengths(rows: Sequence[RenderRow]) -> list[int]:
    return [len(row.request.arguments["prompt"].split()) for row in rows]


def rows_of(*num_words: int) -> list[RenderRow]:
    texts = [" ".join(["word"] * num) for num in num_words]
    return [RenderRow(f"{at}", Request(arguments={"prompt": text}, seed=at)) for at, text in enumerate(texts)]


def test_prompts_that_differ_in_length_are_tried_at_their_ends_and_not_joined_beyond() -> None:
    """A pipeline may pad to a block: two prompts of one say nothing of those of another."""
    joint = Agreeable()
    first, *others = rows_of(8, 11, 5, 9)
    assert lengths(joint.group(first, others, 4)) == [8, 11, 5, 9]
    assert joint.trials == [[5, 11]]
    first, *others = rows_of(7, 53, 5, 31, 11)
    assert lengths(joint.group(first, others, 5)) == [7, 5, 11]
    first, *others = rows_of(53, 5, 53, 11)
    assert lengths(joint.group(first, others, 4)) in ([53], [53, 53])
