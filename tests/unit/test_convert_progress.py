"""What `framefleet model convert` shows while it writes: bytes on a terminal, nothing in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from framefleet.plugins.ports import command as convert_command


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_shows_the_bytes_written_and_a_log_nothing(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=is_terminal, width=100)
    monkeypatch.setattr(convert_command, "stderr", console)
    with convert_command._bytes_written() as progress:
        progress(1_500_000_000, 34_000_000_000)
    assert ("1.5/34.0 GB" in shown.getvalue()) == is_terminal
    assert is_terminal or not shown.getvalue()
