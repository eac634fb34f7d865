"""The pages of docs/reference: every key has a meaning and an example, and a stale page is found."""

from __future__ import annotations

import re

import pytest
import yaml

import framefleet
from framefleet.jobs.job.schema import job_schema
from framefleet.pipeline import errors
from tests.commands import command
from tools.house.house import House
from tools.models_page import page as models_page
from tools.reference import PAGES, ROOT, commands_page, example_of, job_keys, python_page, stale_pages
from tools.words import words_by_page

EXAMPLES = yaml.safe_load((ROOT / "tools/reference_examples.yaml").read_text("utf-8"))


@pytest.mark.parametrize("section", [None, "train"])
def test_every_key_has_a_meaning_and_an_example(section: str | None) -> None:
    keys = list(job_keys(job_schema(section)))
    assert len(keys) > 50
    assert [key.path for key in keys if not key.schema.get("description")] == []
    for key in keys:
        example_of(key, EXAMPLES)  # raises without one


def test_a_page_is_refused_once_a_key_or_an_option_changes() -> None:
    texts = {path: page() for path, page in PAGES.items()}
    assert list(stale_pages(House(texts))) == []
    changed = texts | {"docs/reference/commands.md": commands_page().replace("--limit", "--first")}
    assert [finding.path for finding in stale_pages(House(changed))] == ["docs/reference/commands.md"]


def test_the_skill_has_what_agents_read_first_and_is_printed() -> None:
    text = (ROOT / "plugins/skill/SKILL.md").read_text("utf-8")
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["name"] == "framefleet"
    assert len(yaml.safe_load(front)["description"]) < 1024 and len(body.split()) < 1200
    assert command("skill").stdout == text


def test_every_error_is_imported_from_framefleet_and_has_a_meaning_of_its_own() -> None:
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception)]
    table = python_page().partition("## Errors")[2]
    rows = re.findall(r"^\| `(\w+)` \| `\w+` \| (.+) \|$", table, re.MULTILINE)
    assert {name for name, _ in rows} == {kind.__name__ for kind in kinds}
    assert all(getattr(framefleet, kind.__name__) is kind for kind in kinds)
    assert len({meaning for _, meaning in rows}) == len(rows)


def test_the_python_page_explains_all_members_and_sends_nobody_to_sources() -> None:
    page = python_page()
    assert re.findall(r"^- `.*`: *$", page, re.MULTILINE) == []
    explained = set(re.findall(r"^(?:### (?:framefleet\.)?|\| `)(\w+)", page, re.MULTILINE))
    quoted = re.findall(r"`([\w.]*[A-Z][a-z]\w+|[\w/]+\.py)`", page.partition("## Errors")[0])
    quoted += re.findall(r"see `?([A-Z]\w+)", page)
    assert {name for name in quoted if name not in explained} == set()


def test_the_first_pages_stay_short() -> None:
    words = words_by_page()
    assert words["README.md"] <= 1200
    assert words["docs/models.md"] <= 1500


def test_the_page_of_models_is_the_one_that_the_presets_make() -> None:
    text = (ROOT / "docs/reference/models.md").read_text(encoding="utf-8")
    assert text == models_page(), "python -m tools.models_page > docs/reference/models.md"
