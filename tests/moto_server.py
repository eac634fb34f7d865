"""A moto server whose conditional writes are atomic, as those of S3 are; arguments as of `moto_server`.

moto looks whether there is an object and then writes, and another of its threads may write in between.
"""

from __future__ import annotations

import threading
from typing import Any

from moto.s3.responses import S3Response
from moto.server import main

_PUT, _ONE_AT_A_TIME = S3Response.put_object, threading.Lock()


def _put_object(response: S3Response) -> Any:
    with _ONE_AT_A_TIME:
        return _PUT(response)


if __name__ == "__main__":
    S3Response.put_object = _put_object
    main()
