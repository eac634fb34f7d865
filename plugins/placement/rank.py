"""`python -m framefleet.plugins.placement.rank PARENT`: one rank of a group. It ends with its parent.

Its standard input is a connection to the parent.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
from multiprocessing.connection import Connection

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    parent = int(sys.argv[1])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has died before
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all: the parent decides
    connection = Connection(os.dup(0))
    try:
        from framefleet.plugins.placement.lockstep import compute_until_closed

        compute_until_closed(connection)
    except EOFError:  # the parent has closed its end
        pass
    except BaseException as error:  # the parent raises it for the row
        from framefleet.api.models import is_out_of_memory

        connection.send_bytes(pickle.dumps((is_out_of_memory(error), f"{type(error).__name__}: {error}")))
    finally:
        os._exit(0)  # not by way of libraries that wait for the others of the group


if __name__ == "__main__":
    main()
