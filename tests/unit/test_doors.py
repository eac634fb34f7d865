"""Plugins of other packages add commands and listeners; one that cannot be used is named, with the fix."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from framefleet.doors import plugins
from framefleet.jobs.cli import command_line
from framefleet.pipeline.errors import PluginError
from tests.commands import command

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Yield what installs a package with one plugin, as pip leaves it, and undo it afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = {*sys.modules}

    def write(name: str, code: str, *, value: str) -> None:
        (tmp_path / f"{name}_package.py").write_text(dedent(code))
        about = tmp_path / f"{name}_package-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-package\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[framefleet.plugins]\n{name} = {value}\n")
        plugins.cache_clear()
        command_line.cache_clear()

    yield write
    plugins.cache_clear()
    command_line.cache_clear()
    for name in {*sys.modules} - before:
        if name.endswith("_package"):
            del sys.modules[name]


def test_ours_come_first_and_have_a_name_of_their_own() -> None:
    names = [*plugins()]
    assert names[:8] == ["models", "deploy", "train", "demo", "pages", "export", "doctor", "ports"]
    assert len(names) == len({*names})


def test_a_package_adds_a_command(install: Install) -> None:
    code = """
        from framefleet.doors import Plugin

        def wave_command() -> None:
            '''Wave.'''
            print("hello")

        PLUGIN = Plugin(commands={"Use clips": ["wave_package:wave_command"]})
    """
    install("wave", code, value="wave_package:PLUGIN")
    assert command("wave").stdout == "hello\n"


@pytest.mark.parametrize(
    ("name", "code", "problem"),
    [
        ("broken", "import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("broken", "", "AttributeError"),
        ("broken", "PLUGIN = {'commands': {}}", "broken_package:PLUGIN is a dict"),
        ("export", "from framefleet.doors import Plugin\nPLUGIN = Plugin()", "another plugin has the same"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_named_with_its_package(
    install: Install, name: str, code: str, problem: str
) -> None:
    install(name, code, value=f"{name}_package:PLUGIN")
    with pytest.raises(PluginError, match=f"plugin {name} of the package {name}-package: ") as raised:
        plugins()
    assert problem in raised.value.problem
    assert raised.value.exit_code == 2


def test_a_plugin_cannot_replace_a_command(install: Install) -> None:
    code = """
        from framefleet.doors import Plugin

        def render_command() -> None:
            pass

        PLUGIN = Plugin(commands={"Render": ["mine_package:render_command"]})
    """
    install("mine", code, value="mine_package:PLUGIN")
    with pytest.raises(PluginError, match="there are 2 commands named render"):
        command_line()
