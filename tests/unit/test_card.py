"""The card of a dataset: the hub reads its head as YAML, whatever licenses and models are called."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import DatasetCard

from framefleet.plugins.export.card import _card, _public, _size_category

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
    models, asked = [("some/model", text), ("other/model", text)], [("judge", text)]
    card = DatasetCard(_card(models, asked, num_rows=1000, feature="video"))
    plain = " ".join(text.replace("`", "'").split())
    head = card.data.to_dict()
    other = {"license": "other", "license_name": plain}
    tags = {"tags": ["synthetic"], "size_categories": ["1K<n<10K"], "task_categories": ["text-to-video"]}
    assert head == {**({"license": text} if text == "apache-2.0" else other), **tags}
    assert "Models, and the licenses of their weights" in card.text, json.dumps(card.content)


@pytest.mark.parametrize(
    ("num_rows", "category"),
    [(0, "n<1K"), (999, "n<1K"), (10**4, "10K<n<100K"), (10**9 - 1, "100M<n<1B"), (10**12, "n>1T")],
)
def test_a_card_says_how_large_a_dataset_is_in_the_words_of_the_hub(num_rows: int, category: str) -> None:
    assert _size_category(num_rows) == category


@pytest.mark.parametrize("model", ["/home/me/models/wan", "../models/wan/", "file:///srv/wan"])
def test_a_card_names_a_local_model_without_its_folder(model: str) -> None:
    assert _public(model) == "wan"
    assert _public("org/wan@main") == "org/wan@main"
