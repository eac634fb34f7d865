"""What a stranger meets in the house: lines, features by files, imports, words, kinds of tests."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator

from tools.house.dialect import dialect_in
from tools.house.house import PACKAGES, House
from tools.house.tests_at_doors import tests_at_doors

CORE = PACKAGES[:-1]  # without plugins
# Identifiers by which code of the core shows that it knows an optional feature.
FEATURES = {
    "marks": r"marks|watermarks?|ClipMarks|manifest|Ingredient|xmp_packet|aigc_label",
    "scores": r"scores|ClipScore|Scored|score_cells|score_fields|unscored|scoring",
    "drafts": r"drafts?|is_draft|render_drafted|draft_job|most_kept",
    "training": r"training|TrainJob|TrainSettings|Trainers|TRAINING",
    "export": r"export|Exported|ExportChoice",
}
# Files where such a word means something else: places in a text or in memory, a module that is being trained.
HOMONYMS = {
    "pipeline/model/license.py",
    "pipeline/model/network_state.py",
    "pipeline/model/snapshot.py",
    "pipeline/render/fused/forwards.py",
    "pipeline/render/process_state.py",
    "pipeline/rows/tables/csv_text.py",
    "pipeline/rows/tables/index.py",
}


def measures(house: House) -> Iterator[str]:
    """Yield a line for each figure."""
    core, plugins = _paths(house, CORE), _paths(house, ("plugins",))
    for name, paths in (("core", core), ("plugins", plugins)):
        yield f"{name}: {len(paths)} files, {sum(house.texts[path].count(chr(10)) for path in paths):,} lines"
    for feature, pattern in FEATURES.items():
        naming = re.compile(rf"\b({pattern})\b")
        num_files = sum(
            any(map(naming.fullmatch, _identifiers(house.trees[path])))
            for path in core
            if path not in HOMONYMS
        )
        yield f"core files that name {feature}: {num_files}"
    yield f"imports from core to plugins: {sum(_num_plugin_imports(house.trees[path]) for path in core)}"
    for name, paths in (("core", core), ("plugins", plugins)):
        yield f"{name}: {_imports_line(house, paths)}"
        yield f"{name}: private functions called from one place: {_num_called_once(house, paths)}"
        num_words = sum(len(list(dialect_in(house.trees[path]))) for path in paths)
        yield f"{name}: words of the dialect in local names and first lines: {num_words}"
    yield from tests_at_doors(house)


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
