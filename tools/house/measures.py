"""What a stranger meets in the house: lines, features by files, imports, words, kinds of tests."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator

from tools.house.house import PACKAGES, House

CORE = PACKAGES[:-1]  # without plugins
# Identifiers by which code of the core shows that it knows an optional feature.
FEATURES = {
    "marks": r"marks|watermarks?|ClipMarks|manifest|Ingredient|xmp_packet|aigc_label",
    "scores": r"scores|ClipScore|Scored|score_cells|score_fields|unscored|scoring",
    "drafts": r"drafts?|is_draft|render_drafted|draft_job|most_kept",
    "training": r"training|TrainJob|TrainSettings|Trainers|TRAINING",
    "export": r"export|exported|Exported",
}
# Participles and other words that say nothing about what a value is.
DIALECT = {"asked", "found", "given", "held", "kept", "known", "said", "told"}


def measures(house: House) -> Iterator[str]:
    """Yield a line for each figure."""
    core, plugins = _paths(house, CORE), _paths(house, ("plugins",))
    for name, paths in (("core", core), ("plugins", plugins)):
        yield f"{name}: {len(paths)} files, {sum(house.texts[path].count(chr(10)) for path in paths):,} lines"
    for feature, pattern in FEATURES.items():
        naming = re.compile(rf"\b({pattern})\b")
        num_files = sum(any(map(naming.fullmatch, _identifiers(house.trees[path]))) for path in core)
        yield f"core files that name {feature}: {num_files}"
    yield f"imports from core to plugins: {sum(_num_plugin_imports(house.trees[path]) for path in core)}"
    yield _imports_line(house, core + plugins)
    yield f"private functions called from one place: {_num_called_once(house, core + plugins)}"
    yield f"names and first lines in dialect: {sum(_num_odd(house.trees[path]) for path in core + plugins)}"
    yield _tests_line(house)


def _paths(house: House, packages: tuple[str, ...]) -> list[str]:
    return [path for path in house.trees if path.partition("/")[0] in packages]


def _identifiers(tree: ast.Module) -> Iterator[str]:
    """Yield the names that functions and classes of a file use; imports alone are no use of them."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name))
            ):
                yield name


def _num_plugin_imports(tree: ast.Module) -> int:
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return sum((node.module or "").startswith("framefleet.plugins") for node in nodes)


def _imports_line(house: House, paths: list[str]) -> str:
    num_lines = num_import_lines = num_names = 0
    for path in paths:
        num_lines += house.texts[path].count("\n")
        for node in ast.walk(house.trees[path]):
            if isinstance(node, ast.Import | ast.ImportFrom):
                num_import_lines += (node.end_lineno or node.lineno) - node.lineno + 1
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("framefleet"):
                num_names += len(node.names)
    return (
        f"lines that are imports: {num_import_lines / num_lines:.1%}; own names imported per 1,000 lines: "
        f"{1000 * num_names / num_lines:.0f}"
    )


def _num_called_once(house: House, paths: list[str]) -> int:
    num_functions = 0
    for path in paths:
        nodes = [*ast.walk(house.trees[path])]
        uses = Counter(
            node.id if isinstance(node, ast.Name) else node.attr
            for node in nodes
            if isinstance(node, ast.Name | ast.Attribute)
        )
        functions = (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
        num_functions += sum(
            re.match("_[^_]", node.name) is not None and uses[node.name] == 1 for node in functions
        )
    return num_functions


def _num_odd(tree: ast.Module) -> int:
    """Return how many variables, functions and first lines of docstrings use a word of DIALECT."""
    num_odd = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            num_odd += node.id.strip("_") in DIALECT
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first_line = (ast.get_docstring(node) or "").partition("\n")[0]
            num_odd += node.name.strip("_") in DIALECT
            num_odd += bool(re.search(r"\btold\b|\bof which\b|\bin company\b|\bwho holds\b", first_line))
    return num_odd


def _tests_line(house: House) -> str:
    """Return how many tests go through the command line or the public face, by what their files import."""
    num_tests = num_at_doors = 0
    for path, text in house.texts.items():
        if re.fullmatch(r"tests/.*/test_\w+\.py", path):
            tree = ast.parse(text)
            functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
            count = sum(function.name.startswith("test_") for function in functions)
            modules = (node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
            inside = [module for module in modules if module.startswith("framefleet.")]
            num_tests += count
            num_at_doors += count if inside in ([], ["framefleet.pipeline.errors"]) else 0
    return (
        f"tests through the command line or the public face: {num_at_doors / num_tests:.0%} of {num_tests:,}"
    )
