"""Each sentence of README's promises, and each exit code, has a case marked `promise` that shows it."""

from __future__ import annotations

import ast
import re

from tests.changed import ROOT


def promises() -> list[str]:
    text = (
        (ROOT / "README.md").read_text(encoding="utf-8").split("## What it promises")[1].split("\n\nHow ")[0]
    )
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text).replace("**", "")
    items = [" ".join(item.split()) for item in re.split(r"^\d\. ", text, flags=re.MULTILINE)[1:]]
    sentences = [sentence for item in items for sentence in re.split(r"(?<=\.) (?=[A-Z])", item)]
    table = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8").split("## Exit codes")[1]
    codes = ", ".join(re.findall(r"^\| (\d[\d, ]*) \|", table, re.MULTILINE)).split(", ")
    return [*sentences, *(f"exit code {code}" for code in codes)]


def shown() -> set[str]:
    """Return what the markers of all cases name."""
    names = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.promise":
                names |= {str(ast.literal_eval(argument)) for argument in node.args}
    return names


def test_each_promise_is_shown_and_what_is_shown_is_promised() -> None:
    marked = shown() - {"Its frames equal"}  # of tests of the markers themselves
    promised = promises()
    assert len(promised) > 15
    assert [sentence for sentence in promised if not sentence.startswith(tuple(marked))] == []
    assert [name for name in marked if not any(sentence.startswith(name) for sentence in promised)] == []
