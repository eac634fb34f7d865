"""Break the core at random, one small change at a time, and print which tests notice.

For each mutant it runs the nearest files of tests (`make test-changed`), and then the whole suite
(`make test-all`) once for all mutants that nothing there noticed. A failing test notices a mutant if it also
fails alone with only that one, and passes without any. `make test` notices what a test does that it runs
after a change of that file. Not mutated: annotations, f-strings, flags of `@dataclass`, calls of loggers,
lines that are not ASCII, and conditions and operators over several lines.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from types import CodeType

from tests.changed import module_of, nearest_tests
from tests.durations import last_full_run
from tests.tiers import ROOMS_S, rooms_to_run

ROOT = Path(__file__).resolve().parents[1]
TIME_LIMIT_S = 2 * 3600
MOST_FAILURES = 60  # of a run with several mutants: one that breaks everything hides the others
EXCERPT = 60  # characters of a line in the table
OPERATORS = {"+": "-", "-": "+", "*": "/", "/": "*", "//": "*", "%": "*", "**": "*"}
OPERATORS |= {f"{symbol}=": f"{new}=" for symbol, new in OPERATORS.items()}
OPERATORS |= {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}
OPERATORS |= {"is": "is not", "is not": "is", "in": "not in", "not in": "in"}
COMMITTER = ("-c", "user.name=mutants", "-c", "user.email=@")
MAKE = ("make", "--old-file", ".venv/.installed")  # do not install again
# Prints where Python finds the modules, in this process and in a Ray worker.
ORIGINS = """import ray, sys
from importlib.util import find_spec
def origins(names): return [sys.prefix, *(find_spec(name).origin for name in names)]
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
print(*origins(sys.argv[1:]), *ray.get(ray.remote(origins).remote(sys.argv[1:])), sep="\\n")"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One line, and what it becomes."""

    path: str
    line: int  # from 1
    kind: str
    start: int  # where the lines begin to differ
    before: str
    after: str

    def apply(self, text: str) -> str:
        lines = text.split("\n")
        return "\n".join([*lines[: self.line - 1], self.after, *lines[self.line :]])

    def row(self, *verdicts: str) -> str:
        """Return a row of the table, with the part of the line that changes."""
        indent = len(self.before) - len(self.before.lstrip())
        start = max(indent, self.start - EXCERPT // 2)
        edit = " -> ".join(f"`{line[start:][:EXCERPT].rstrip()}`" for line in (self.before, self.after))
        cells = (f"{self.path}:{self.line}", self.kind, edit, *verdicts)
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def mutants_of(path: str, text: str) -> Iterator[Mutant]:
    """Yield all mutants of a file, also those that do not compile or change no bytecode."""
    lines = text.split("\n")
    for node in _nodes(ast.parse(text)):
        for kind, place, start, end, new in _edits(node, lines):
            if (before := lines[place - 1]).isascii():  # `ast` counts bytes
                after = before[:start] + new + before[end:]
                yield Mutant(path=path, line=place, kind=kind, start=start, before=before, after=after)


def _nodes(parent: ast.AST) -> Iterator[ast.AST]:
    """Yield what is mutated. Before Python 3.12, positions in f-strings are wrong."""
    for name, value in ast.iter_fields(parent):
        for node in value if isinstance(value, list) else [value]:
            is_flags = name == "decorator_list" and ast.unparse(node).startswith("dataclass(")
            is_left_out = name in ("annotation", "returns") or is_flags or isinstance(node, ast.JoinedStr)
            if isinstance(node, ast.AST) and not is_left_out:
                yield node
                yield from _nodes(node)


def _edits(node: ast.AST, lines: list[str]) -> Iterator[tuple[str, int, int, int | None, str]]:
    """Yield kind, line, start and end in it, and the new text."""

    def operators(kind: str, *operands: ast.expr) -> Iterator[tuple[str, int, int, int | None, str]]:
        for left, right in pairwise(operands):
            line, start = right.lineno, left.end_col_offset or 0
            found = re.match(r"[)\s]*(is not|not in|[^\s(]+)", lines[line - 1][start : right.col_offset])
            if found and found[1] in OPERATORS and left.end_lineno == line:
                yield kind, line, start + found.start(1), start + found.end(1), OPERATORS[found[1]]

    match node:
        case ast.Compare(left=left, comparators=others):
            yield from operators("comparison", left, *others)
        case ast.BinOp(left=left, right=right) | ast.AugAssign(target=left, value=right):
            yield from operators("arithmetic", left, right)
        case ast.UnaryOp(op=ast.Not(), lineno=line, col_offset=start):
            yield "condition", line, start, start + len("not "), ""
        case ast.If(test=t) | ast.While(test=t) | ast.IfExp(test=t) | ast.comprehension(ifs=[t]):
            # The others have cases of their own.
            if t.lineno == t.end_lineno and not isinstance(t, ast.Compare | ast.UnaryOp | ast.Constant):
                test = lines[t.lineno - 1][t.col_offset : t.end_col_offset]
                yield "condition", t.lineno, t.col_offset, t.end_col_offset, f"not ({test})"
        case ast.Constant(value=bool() | int() | float() as value):
            other = not value if isinstance(value, bool) else value + 1
            yield "constant", node.lineno, node.col_offset, node.end_col_offset, str(other)
        case ast.Expr(value=ast.Call(func=called) | ast.Await(value=ast.Call(func=called))):
            is_one_line = node.lineno == node.end_lineno
            if not re.match(r"(\w+\.)*_?log(ger)?\.\w+$", ast.unparse(called)):
                # Over several lines, `pass` would not be an edit of one.
                end, new = (node.end_col_offset, "pass") if is_one_line else (node.col_offset, "0 and ")
                yield "dropped call", node.lineno, node.col_offset, end, new


def choose(texts: Mapping[str, str], *, seed: int, count: int) -> list[Mutant]:
    """Return mutants that compile, to other bytecode: a file by its number of sites, then a site."""
    random, chosen = Random(seed), list[Mutant]()
    sites = {path: list(mutants_of(path, text)) for path, text in sorted(texts.items())}
    while len(chosen) < count and any(sites.values()):
        path = random.choices(list(sites), weights=list(map(len, sites.values())))[0]
        mutant = sites[path].pop(random.randrange(len(sites[path])))
        with warnings.catch_warnings(action="ignore"), suppress(SyntaxError):
            before, after = map(_instructions, (texts[path], mutant.apply(texts[path])))
            chosen += [mutant] if before != after else []
    return chosen


def _instructions(source: str | CodeType) -> tuple[object, ...]:
    """Without positions; constants by their text, since 1 equals True."""
    code = compile(source, "", "exec", dont_inherit=True) if isinstance(source, str) else source
    constants = (_instructions(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts)
    return code.co_code, code.co_names, *constants


def install(clone: Path, modules: list[str], targets: list[str]) -> None:
    """Copy .venv and put the clone's folder for the original's in it; exit unless the clone's code runs.

    The editable install is a path in a .pth file, and programs in bin/ name their Python: what starts from
    the copy, Ray workers too, finds only the clone. `pip install -e` would build; links would share files.
    """
    venv = clone / ".venv"
    subprocess.run(["cp", "-a", "--reflink=auto", ROOT / ".venv", venv], check=True)
    for path in [*venv.glob("bin/*"), *venv.glob("lib/*/site-packages/*.pth"), *venv.glob("*.cfg")]:
        if path.is_file() and not path.is_symlink() and bytes(ROOT) in (content := path.read_bytes()):
            path.write_bytes(content.replace(bytes(ROOT), bytes(clone)))
    status, output = run(clone, *MAKE, "--dry-run", *targets)
    if status != 0:
        sys.exit(f"make {' '.join(targets)} cannot run in the clone:\n{output}")
    status, output = run(clone, ".venv/bin/python", "-c", ORIGINS, *modules)
    paths = [Path(path).resolve() for path in re.findall("^/.*", output, re.MULTILINE)]
    if status != 0 or [path.is_relative_to(clone) for path in paths] != [True] * (2 * len(modules) + 2):
        sys.exit(f"the clone does not run its own code:\n{output}")


def failures(clone: Path, target: str, *addopts: str, unreliable: Collection[str]) -> list[str]:
    """Return the tests that fail with what is checked out."""
    without = (f"--deselect={test}" for test in unreliable)
    status, output = run(clone, *MAKE, target, PYTEST_ADDOPTS=shlex.join([*addopts, *without]))
    failing = re.findall(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", output, re.MULTILINE)
    if status != 0 and not failing:
        return ["timed out" if status is None else f"no test: {output.rstrip()[-EXCERPT:]}"]
    return list(dict.fromkeys(failing))


def fails(clone: Path, test: str, commit: str) -> bool:
    """Whether a test fails alone."""
    git(clone, "checkout", "-qf", commit)
    pytest = (".venv/bin/python", "-m", "pytest", "-q", "-m", "long or not long", test)
    return run(clone, *pytest, CI="1")[0] != 0


def nearest_failure(clone: Path, mutant: str, unreliable: list[str]) -> str:
    """Return which of the nearest tests notices the mutant, or how else they do; "" if they pass."""
    while True:
        git(clone, "checkout", "-qf", mutant)
        test = next(iter(failures(clone, "test-changed", "-x", unreliable=unreliable)), "")
        if not test.startswith("tests/") or test in unreliable:  # deselecting does not reach broken files
            return test
        if fails(clone, test, mutant) and not fails(clone, test, "origin/main"):
            return test
        unreliable.append(test)


def noticed_together(clone: Path, mutants: Collection[str], unreliable: list[str]) -> dict[str, str]:
    """Return the test that notices each of several mutants, from one run of the whole suite with all."""
    git(clone, "checkout", "-qf", "origin/main")
    git(clone, *COMMITTER, "cherry-pick", *mutants)
    noticed: dict[str, str] = {}
    for test in failures(clone, "test-all", f"--maxfail={MOST_FAILURES}", unreliable=unreliable):
        if not test.startswith("tests/"):
            sys.exit(f"the whole suite with {len(mutants)} mutants: {test}")
        if fails(clone, test, "origin/main"):
            unreliable.append(test)
            continue
        for mutant in mutants:
            if mutant not in noticed and fails(clone, test, mutant):
                noticed[mutant] = test
    return noticed


def belongs_to_make_test(test: str, path: str) -> bool:
    """Whether `make test` runs a test after a change of one file. What is no test fails there as well."""
    rooms = rooms_to_run(nearest_tests({path}), last_full_run(), *ROOMS_S)
    is_slow = test.startswith("tests/") and last_full_run().seconds(test) is not None
    return not is_slow or test.partition("::")[0] in rooms


def run(clone: Path, *command: str, **variables: str) -> tuple[int | None, str]:
    """Return exit status, None after the time limit, and output; kill what is left of the command."""
    outer = {"CI", "MAKEFLAGS", "PYTHONPATH", "VIRTUAL_ENV", "RAY_ADDRESS"}
    env = {name: value for name, value in os.environ.items() if name not in outer} | variables
    env |= {"PATH": f"{clone}/.venv/bin:{env['PATH']}", "MUTANTS_CLONE": str(clone)}
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(command, cwd=clone, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            status = child.wait(TIME_LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            status = None
        finally:
            for folder in Path("/proc").glob("[0-9]*"):  # Ray's processes leave the group
                with suppress(OSError):
                    if f"MUTANTS_CLONE={clone}\0".encode() in (folder / "environ").read_bytes():
                        os.kill(int(folder.name), signal.SIGKILL)
            child.wait()
        log.seek(0)
        return status, log.read().decode(errors="replace")


def git(clone: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=clone, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.mutants", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--seed", type=int, default=Random().getrandbits(32), help="chooses the mutants")
    parser.add_argument("--count", type=int, default=20, help="number of mutants")
    parser.add_argument("--base", default="HEAD", help="commit to mutate")
    parser.add_argument("--out", type=Path, default=Path(os.devnull), help="file to append the table to")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    unreliable = list[str]()

    def say(line: str) -> None:
        print(line, flush=True)
        with options.out.open("a", encoding="utf-8") as out:
            print(line, file=out)

    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder:
        clone = Path(folder).resolve() / "clone"
        subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
        git(clone, "checkout", "-q", "--detach", options.base)
        git(clone, "update-ref", "refs/remotes/origin/main", "HEAD")  # what tests.changed compares with
        paths = [path for core in ("pipeline", "cluster", "jobs") for path in clone.glob(f"{core}/**/*.py")]
        texts = {path.relative_to(clone).as_posix(): path.read_text("utf-8") for path in paths}
        mutants = choose(texts, seed=options.seed, count=options.count)
        columns = ["mutant", "kind", "before -> after"]
        columns += [] if options.list else ["noticed by", "make test"]
        head = f"Seed {options.seed}\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|"
        if options.list:
            say("\n".join([head, *(mutant.row() for mutant in mutants)]))
            return
        modules = sorted({module_of(mutant.path) for mutant in mutants})
        install(clone, modules, ["test-changed", "test-all"])
        noticed: dict[str, str] = {}
        for number, mutant in enumerate(mutants):
            git(clone, "checkout", "-qf", "origin/main")
            git(clone, "clean", "-fdxq", "-e", ".venv")  # also bytecode, and what Hypothesis keeps
            (clone / mutant.path).write_text(mutant.apply(texts[mutant.path]), "utf-8")
            git(clone, *COMMITTER, "commit", "-qam", mutant.kind)
            git(clone, "tag", name := f"mutant-{number}")
            noticed[name] = nearest_failure(clone, name, unreliable)
            print(mutant.row(noticed[name]), flush=True)
        if others := [name for name, test in noticed.items() if not test]:
            noticed |= noticed_together(clone, others, unreliable)
        num_by_all = num_by_test = 0
        say(head)
        for mutant, test in zip(mutants, noticed.values(), strict=True):
            is_by_test = bool(test) and belongs_to_make_test(test, mutant.path)
            num_by_all, num_by_test = num_by_all + bool(test), num_by_test + is_by_test
            say(mutant.row(test or "no", "yes" if is_by_test else "no"))
        say(f"\nmake test-all notices {num_by_all} of {len(mutants)} mutants, make test {num_by_test}")


if __name__ == "__main__":
    main()
