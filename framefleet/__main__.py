"""The command `framefleet`, also as `python -m framefleet`. From here on, Ctrl-C shows no traceback."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

_INTERRUPTED = 130  # as in `jobs.show.console`, whose import may be what is interrupted


def main() -> None:
    """Run one command and end with its exit code."""
    try:
        os.getcwd()
    except FileNotFoundError:  # plugins are not found there, and torch does not load
        print("error: the current folder has been deleted\nhint: change to another folder", file=sys.stderr)
        sys.exit(2)
    try:
        from framefleet.jobs.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    finally:
        # Python still tidies up, and would print where it was interrupted.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    with suppress(FileNotFoundError):  # see `main`
        if not sys.flags.safe_path and sys.path[0] == os.getcwd():
            del sys.path[0]  # a stranger's modules may lie there
    main()
