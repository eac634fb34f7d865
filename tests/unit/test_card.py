"""The card of a dataset: the hub reads its head as YAML, whatever licenses and models are called."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import DatasetCard

from framefleet.plugins.export.card import _card

TEXTS = [
    *("apache-2.0", "cc-by: share, alike", "MIT # not", "'quoted", '"quoted', "`code`", "[a, b]", "{a: b}"),
    *(
        "- item",
        "* item",
        "&anchor",
        "*alias",
        "!tag",
        "| block",
        "> folded",
        "%YAML",
        "@at",
        "? key",
        ": value",
    ),
    *("yes", "null", "~", "1.0", "2020-01-01", "---", "...", "a\n---\nevil: true", "\ttab", " space ", ""),
    *("许可证", "\x85next", "\u2028line", "\x1b[31m", "a" * 5000, "license: mit", "\\", "\ufeffbom", "🎬"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_head_of_a_card_holds_a_license_of_any_text(text: str) -> None:
    card = DatasetCard(_card([("some/model", text), ("other/model", text)]))
    plain = " ".join(text.replace("`", "'").split())
    head = card.data.to_dict()
    assert head == {"license": "other", "license_name": plain, "tags": ["synthetic"]}
    assert "Models, and the licenses of their weights" in card.text, json.dumps(card.content)
