"""The last commit as strangers get it: built, checked, and installed into bare environments that render.

    python -m tools.benchmarks.release [--short] [--python PYTHON ...]

Prints a table, and stops at the first step that fails. Needs an index of packages, 15 GB for a while and half
an hour.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")
CHECKERS = ("build", "twine", "check-wheel-contents")
PACKAGES = ("framefleet", "pipeline", "cluster", "jobs", "plugins")
PROMPT = "a red ball bounces on a blue background"

# Imports every public module of some distributions.
IMPORT = """
import importlib, sys
from importlib.metadata import packages_distributions
wanted = {name.lower().replace("_", "-") for name in sys.argv[1:]}
missing = set(wanted)
for module, owners in packages_distributions().items():
    own = wanted & {owner.lower().replace("_", "-") for owner in owners}
    if own and module.isidentifier() and not module.startswith("_"):
        importlib.import_module(module)
        missing -= own
sys.exit(f"no modules: {missing}" if missing else 0)
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="only build a wheel, with what is installed here"
    )
    parser.add_argument("--python", nargs="+", default=PYTHONS, help="interpreters to install for")
    wanted = parser.parse_args(arguments)
    print("| step | minutes |\n|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        clone = Path(folder) / "clone"
        run(Path(folder), "git", "clone", "--quiet", str(ROOT), str(clone))
        began = time.monotonic()
        for step in short_steps(clone) if wanted.short else steps(clone, wanted.python):
            print(f"| {step} | {(time.monotonic() - began) / 60:.1f} |", flush=True)
            began = time.monotonic()


def short_steps(clone: Path) -> Iterator[str]:
    """Do what needs no index of packages; yield what was done."""
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(clone.parent))
    run(clone, sys.executable, "-m", "pip", "wheel", *options, ".")
    check_files(next(clone.parent.glob("*.whl")), clone)
    yield "wheel built, no file missing"


def steps(clone: Path, pythons: Sequence[str]) -> Iterator[str]:
    """Do one step after the other; yield what each did."""
    folder = clone.parent
    sdist, wheel = build(clone)
    sizes = f"sdist of {sdist.stat().st_size / 1e6:.1f} MB and wheel of {wheel.stat().st_size / 1e6:.1f} MB"
    yield f"{sizes} built; `twine check --strict`, `check-wheel-contents`, no file missing"
    environments = [new_environment(folder / f"python-{number}", name) for number, name in enumerate(pythons)]
    for python in environments:
        version = run(folder, str(python), "--version").strip()
        pip(python, str(wheel), pins=clone)
        yield f"wheel installed for {version}"
        render_demo(python)
        yield f"`framefleet demo` on {version}"

    extras = tomllib.loads((clone / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in [name for name in extras if name != "dev"]:
        pip(python, f"{wheel}[{extra}]", pins=clone)
        names = [re.split(r"[\[<>=]", line)[0] for line in extras[extra]]
        run(folder, str(python), "-c", IMPORT, *names)
    yield f"each extra installed and imported on {version}"

    run(clone, "git", "archive", "--output", str(folder / "archive.tar"), "HEAD")
    with tarfile.open(folder / "archive.tar") as archive:
        archive.extractall(folder / "archive", filter="data")
    for title, source in (("`git+URL`", f"git+file://{clone}"), ("source archive", str(folder / "archive"))):
        pip(python, "--force-reinstall", "--no-deps", source)
        render_demo(python, PROMPT)
        yield f"{title} installed, a prompt rendered"


def build(clone: Path) -> tuple[Path, Path]:
    """Build sdist and wheel, and check them; return both."""
    folder = clone.parent
    python = new_environment(folder / "checkers", sys.executable)
    pip(python, *CHECKERS)
    run(clone, str(python), "-m", "build", "--outdir", str(folder / "dist"))
    sdist, wheel = (next((folder / "dist").glob(ending)) for ending in ("*.tar.gz", "*.whl"))
    run(folder, str(python), "-m", "twine", "check", "--strict", str(sdist), str(wheel))
    # W002: duplicate files. Licenses are next to the files that they cover, and in dist-info (PEP 639).
    run(folder, str(python.parent / "check-wheel-contents"), "--ignore", "W002", str(wheel))
    check_files(wheel, clone)
    return sdist, wheel


def check_files(wheel: Path, clone: Path) -> None:
    """Exit if a wheel lacks a file of the packages."""
    tracked = [Path(file) for file in run(clone, "git", "ls-files", *PACKAGES).splitlines()]
    # framefleet/ has links to the other folders, whose READMEs are for developers.
    files = [file for file in tracked if file.name != "README.md" and not (clone / file).is_symlink()]
    inside = {*zipfile.ZipFile(wheel).namelist()}
    named = (file if file.parts[0] == "framefleet" else "framefleet" / file for file in files)
    if missing := [str(file) for file in named if str(file) not in inside]:
        sys.exit(f"{wheel.name} lacks {', '.join(missing[:5])}; see package-data in pyproject.toml")


def new_environment(folder: Path, python: str) -> Path:
    """Make a bare environment; return its interpreter."""
    run(folder.parent, python, "-m", "venv", str(folder))
    return folder / "bin" / "python"


def pip(python: Path, *packages: str, pins: Path | None = None) -> None:
    """Install packages. pins: a clone whose constraints.txt has their versions."""
    constraint = ["--constraint", str(pins / "constraints.txt")] if pins else []
    run(python.parent, str(python), "-m", "pip", "install", "--quiet", *constraint, *packages)


def render_demo(python: Path, *prompts: str) -> None:
    """Render the demo, or some prompts, in a folder of its own."""
    folder = tempfile.mkdtemp(dir=python.parents[1])
    run(Path(folder), str(python.parent / "framefleet"), "demo", *prompts)


def run(folder: Path, *command: str) -> str:
    """Run a command without this process's settings of Python; return what it prints. Exit if it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    return ended.stdout


if __name__ == "__main__":
    main()
