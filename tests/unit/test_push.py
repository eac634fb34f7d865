"""An export reaches a dataset of the hub whole, goes on after an interruption, and has a card to be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

from framefleet import Store
from framefleet.plugins.export import push
from framefleet.plugins.export.card import _card, _public, _size_category
from tests.commands import command
from tests.hub_datasets import DatasetHub, dataset_hub
from tests.small_output import files, rendered

__all__ = ["dataset_hub"]


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Commits of two files each."""
    monkeypatch.setattr(push, "_COMMIT_FILES", 2)
    rendered(Store(str(tmp_path / "out")), 5)
    places = (str(tmp_path / "out"), str(tmp_path / "to"))
    return ("export", *places, "--format", "hf", "--shard-rows", "3", "--push", "org/balls")


def test_a_push_brings_all_files(tmp_path: Path, arguments: tuple[str, ...], dataset_hub: DatasetHub) -> None:
    result = command(*arguments, "--private", exits=0)
    assert result.stdout.split()[-1] == f"{dataset_hub.endpoint}/datasets/org/balls"
    assert dataset_hub.repos["org/balls"] == files(tmp_path / "to")
    assert "data/000000/metadata.parquet" in dataset_hub.repos["org/balls"]
    assert [len(paths) for paths in dataset_hub.commits] == [2, 2, 2, 2, 1]
    assert dataset_hub.private == {"org/balls"}


def test_a_push_that_was_interrupted_goes_on_and_takes_nothing_twice(
    tmp_path: Path, arguments: tuple[str, ...], dataset_hub: DatasetHub
) -> None:
    dataset_hub.fails_at = 2
    result = command(*arguments, exits=3)
    assert dataset_hub.token not in result.output
    assert "run the same command again" in result.stderr
    dataset_hub.fails_at = 1000
    assert command(*arguments).exit_code == 0
    assert dataset_hub.repos["org/balls"] == files(tmp_path / "to")
    assert sorted(path for paths in dataset_hub.commits for path in paths) == sorted(files(tmp_path / "to"))


def test_who_may_not_write_is_told_before_anything_is_exported(
    tmp_path: Path, arguments: tuple[str, ...], dataset_hub: DatasetHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong-token-of-the-test")
    result = command(*arguments, exits=2)
    assert "hf auth login" in result.stderr and "hf_wrong" not in result.output
    assert not (tmp_path / "to").exists()
    assert command(*arguments[:-1], "balls").exit_code == 2


def test_a_card_that_a_dataset_has_stays(arguments: tuple[str, ...], dataset_hub: DatasetHub) -> None:
    dataset_hub.repos["org/balls"] = {"README.md": b"mine"}
    assert command(*arguments).exit_code == 0
    assert dataset_hub.repos["org/balls"]["README.md"] == b"mine"


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
