"""Commands run in this process, for tests that start no Ray: importing torch and diffusers takes seconds."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

from typer.testing import CliRunner, Result

from framefleet.jobs.cli import app


def command(*arguments: str | Path) -> Result:
    """Run `framefleet` with these arguments; return its exit code and what it printed.

    The variables that it sets, as its own process would, do not stay.
    """
    with mock.patch.dict(os.environ):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])
