"""`framefleet`, as the leader of a session whose terminal is its standard input."""

from __future__ import annotations

import fcntl
import runpy
import termios

if __name__ == "__main__":
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    runpy.run_module("framefleet", run_name="__main__", alter_sys=True)
