"""The card of a dataset: the hub reads its head as YAML, whatever licenses and models are called."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import DatasetCard

from framefleet.plugins.export.card import _card, _public

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
    other = {"license": "other", "license_name": plain}
    assert head == {**({"license": text} if text == "apache-2.0" else other), "tags": ["synthetic"]}
    assert "Models, and the licenses of their weights" in card.text, json.dumps(card.content)


@pytest.mark.parametrize("model", ["/home/me/models/wan", "../models/wan/", "file:///srv/wan"])
def test_a_card_names_a_local_model_without_its_folder(model: str) -> None:
    assert _public(model) == "wan"
    assert _public("org/wan@main") == "org/wan@main"
