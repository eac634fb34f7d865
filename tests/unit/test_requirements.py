"""pyproject.toml allows no version with an advisory that we know, and takes the versions that are tested."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.jobs import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# The last version that each advisory is about, as of November 2026.
AFFECTED = {
    "aiohttp": ("3.12.13", "3.13.2", "3.13.3"),  # request smuggling, zip bombs, endless memory
    "cryptography": ("44.0.0", "46.0.4", "46.0.6"),  # points of small order, names, buffers
    "duckdb": ("1.4.1",),
    "filelock": ("3.20.0", "3.20.2"),  # links in the place of locks
    "pillow": ("12.1.0", "12.1.1"),
    "playwright": ("1.55.0",),
    "protobuf": ("5.29.4", "6.31.0", "6.33.4"),  # recursion without end
    "pyarrow": ("14.0.0", "22.0.0", "23.0.0"),  # use after free in IPC files
    "ray": ("2.51.2", "2.53.0"),
    "sentencepiece": ("0.2.0",),
    "setuptools": ("78.1.0",),
    "torch": ("2.5.1", "2.9.1"),  # code in pickles that are read with weights_only
    "tqdm": ("4.66.2",),
    # code that configs name, files that they write, and files elsewhere that tokenizers read
    "transformers": ("4.57.6", "5.4.0", "5.9.0", "5.11.0"),
}


def required() -> Iterator[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    lists = (PROJECT["project"]["dependencies"], PROJECT["build-system"]["requires"], *extras)
    yield from (Requirement(text) for texts in lists for text in texts)


def test_no_version_with_a_known_advisory_is_allowed() -> None:
    by_name = {canonicalize_name(one.name): one.specifier for one in required()}
    allowed = [f"{name} {v}" for name, some in AFFECTED.items() for v in some if v in by_name[name]]
    assert allowed == []


def test_the_tested_versions_are_allowed() -> None:
    pinned = (line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    tested = {canonicalize_name(name): version for name, _, version in pinned if version}
    versions = [(one, tested.get(canonicalize_name(one.name))) for one in required()]
    assert [str(one) for one, version in versions if version and version not in one.specifier] == []


def test_what_only_a_plugin_needs_is_an_extra_of_its_name() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    plugins = {one.name for one in (ROOT / "plugins").iterdir() if one.is_dir()}
    assert {"export", "marks", "pages", "post", "scores", "train"} <= plugins & extras.keys()
    needed = {canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"]}
    assert not needed & {"matplotlib", "notojp-matplotlib"}, "no clip needs a chart"
