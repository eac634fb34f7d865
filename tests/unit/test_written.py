"""Tables of README and docs, written by `bench --write-docs`: only what a block encloses changes."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from tests.jobs import ROOT
from tools.benchmarks.written import TABLES, Command, write_docs
from tools.house.house import House
from tools.house.measurements import BLOCK, stray_measurements

EMPTY = "# A page\n\nBefore.\n\n<!-- measured: {name} -->\n<!-- end -->\n\nAfter.\n"


class Printed(Command):
    rate = ""

    def __call__(self, is_short: bool) -> str:
        return f"| {Printed.rate} |\n|---|\n"


def test_a_table_is_written_into_its_block_alone_with_command_commit_and_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    page, other = tmp_path / "docs/a.md", tmp_path / "docs/b.md"
    page.write_text(EMPTY.format(name="load"))
    other.write_text(EMPTY.format(name="start"))
    monkeypatch.setitem(cast(dict[str, object], TABLES), "load", Printed("load"))
    for rate in ("4.9 rows/s", "5.1 rows/s"):  # the second time over what the first one wrote
        Printed.rate = rate
        write_docs(["load"], root=tmp_path)
        before, found, after = BLOCK.sub("<!-- X -->", text := page.read_text()).partition("<!-- X -->")
        assert (before, found, after) == ("# A page\n\nBefore.\n\n", "<!-- X -->", "\n\nAfter.\n")
        assert f"| {rate} |" in text and text.count("rows/s") == 1
        assert "`python -m tools.benchmarks.load` at commit " in text and " cores of " in text
        assert not list(stray_measurements(House({"docs/a.md": text})))
        assert list(stray_measurements(House({"docs/a.md": text.replace(rate, "9.9 rows/s")})))
    assert other.read_text() == EMPTY.format(name="start")
    with pytest.raises(SystemExit, match="no table is called lode; use mixed,"):
        write_docs(["lode"])


def test_every_block_of_the_documents_has_a_table_and_every_table_a_block() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    found = {(match["name"], match[0]) for page in pages for match in BLOCK.finditer(page.read_text("utf-8"))}
    assert sorted(name for name, _ in found) == sorted(TABLES), "a table in two pages is the same in both"
