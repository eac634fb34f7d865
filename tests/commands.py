"""Commands run in this process, for tests that start no Ray: importing torch and diffusers takes seconds.

And a script that runs one in a process of its own, and ends by saying which heavy libraries it has imported.
"""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from framefleet.jobs.cli import command_line
from tests.own_environment import own_environment

HEAVY = {"torch", "torchao", "diffusers", "transformers", "ray", "pandas", "aiohttp"}
TELLING_IMPORTS = f"""
import sys
from framefleet.__main__ import main
try: main()
finally: print('imported:', *sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr)
"""


def command(*arguments: str | Path, exits: int | None = None) -> Result:
    """Run `framefleet` with these arguments; return its exit code and what it printed.

    The variables that it sets, as its own process would, do not stay. exits: the exit code that it must have.
    """
    with own_environment():
        result = CliRunner().invoke(command_line(), [str(argument) for argument in arguments])
    assert exits is None or result.exit_code == exits, result.output
    return result
