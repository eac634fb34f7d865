"""An S3 server on the hosts' network: a proxy before a real one on loopback, that goes wrong on request.

Run as a program by in whose network, where it listens, and the real server. What goes wrong comes as lines of
JSON on its standard input, with which it ends.
"""

from __future__ import annotations

import json
import sys
from functools import partial

from tests.faulty_s3 import Fault, FaultyS3
from tools.chaos.namespaces import inside


def main(network: int, address: str, port: int, upstream: str) -> None:
    proxy = FaultyS3(upstream, host=address, port=port, network=partial(inside, network))
    print("ready", flush=True)
    for line in sys.stdin:
        told = json.loads(line)
        proxy.goes_wrong(Fault(**told | {"methods": frozenset(told["methods"])}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
