"""Words of README and docs/ per page, without what tools write: `python -m tools.words`."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
MADE = re.compile(r"<!-- measured: .*?<!-- end[^>]*-->|<!-- Made [^\n]*", re.DOTALL)


def words_by_page() -> dict[str, int]:
    """Return the words of each page that people write; docs/why is for developers and left out."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return {
        page.relative_to(ROOT).as_posix(): len(MADE.sub("", page.read_text("utf-8")).split())
        for page in pages
    }


if __name__ == "__main__":
    words = words_by_page()
    for path, count in sorted(words.items(), key=lambda item: -item[1]):
        print(f"{count:6,} {path}")
    print(f"{sum(words.values()) - words['README.md']:6,} docs without README")
