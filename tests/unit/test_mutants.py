"""Mutants of a small text: which lines change, and into what."""

from __future__ import annotations

import pytest

from tools.mutants import choose, mutants_of


@pytest.mark.parametrize(
    ("text", "mutated"),
    [
        ("x = a < b", {"x = a <= b"}),
        ("x = (a) is not (b)", {"x = (a) is (b)"}),
        ("x = a < b == c", {"x = a <= b == c", "x = a < b != c"}),
        ("x += y // z", {"x -= y // z", "x += y * z"}),
        ("x = not a", {"x = a"}),
        ("if a and b: pass", {"if not (a and b): pass"}),
        ("x = f(True, 1.5)", {"x = f(False, 1.5)", "x = f(True, 2.5)"}),
        ("f(a)", {"pass"}),
        ("f(\n    a,\n)", {"0 and f("}),
        ("self.log.warning(a)", set()),
        ('"""A text."""', set()),
        ("x: Literal[1] = f'{a + 1}'", set()),
        ("@dataclass(frozen=True)\nclass A: pass", set()),
    ],
)
def test_a_line_is_mutated_in_one_place(text: str, mutated: set[str]) -> None:
    assert {mutant.after for mutant in mutants_of("a.py", text)} == mutated


def test_one_line_of_a_file_changes() -> None:
    text = "a = 1\nb = a < 2\n"
    assert [mutant.apply(text) for mutant in mutants_of("a.py", text) if mutant.kind == "comparison"] == [
        "a = 1\nb = a <= 2\n"
    ]


def test_a_seed_chooses_mutants_once_each() -> None:
    texts = {"a.py": "x = 1\ny = 2\n", "b.py": "z = 3 < 4\n"}
    chosen = choose(texts, seed=7, count=100)
    assert chosen == choose(texts, seed=7, count=100)
    assert len(set(chosen)) == len(chosen) == 5


def test_equal_bytecode_is_not_chosen() -> None:
    assert list(mutants_of("a.py", "0\n"))
    assert choose({"a.py": "0\n"}, seed=7, count=9) == []
