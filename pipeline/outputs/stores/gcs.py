"""What Google Cloud Storage has of its own, below gcsfs: patience of its client, checks, and its errors."""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType
from typing import Any

import fsspec

from framefleet.pipeline.outputs.stores.retries import DamagedUpload

_SCHEMES = ("gs", "gcs")
# aiohttp's own is five minutes for all of a request, also of a large one that comes along well.
_CONNECT_S, _SILENCE_S = 20, 60
# Methods that gcsfs makes six attempts of, with half a minute of pauses.
_REPEATED = ("_request", "_get_file_request", "_get_file_concurrent")

# Not gcsfs's newer class, which asks another service of what kind a bucket is, and does so with every request
# where that is not allowed. It is for zonal buckets.
for _scheme in _SCHEMES:
    fsspec.register_implementation(
        _scheme, "gcsfs.core.GCSFileSystem", clobber=True, errtxt="pip install 'framefleet[gcs]'"
    )


def is_gcs(url: str) -> bool:
    return url.partition("://")[0] in _SCHEMES


def gcs_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user's options, with what we need unless they chose it themselves."""
    from aiohttp import ClientTimeout

    patience = ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
    return {"consistency": "md5", "requests_timeout": patience, **options}


def ask_gcs_once(files: Any) -> None:
    """Let a file system that was opened make each request once: `Patience` repeats it."""
    for name in _REPEATED:
        if once := getattr(getattr(type(files), name, None), "__wrapped__", None):
            setattr(files, name, MethodType(once, files))


def put_on_gcs(files: Any, place: str, content: bytes, **mode: str) -> None:
    """Store content, whole or not at all. Raises DamagedUpload where its MD5 is another there."""
    try:
        files.pipe_file(place, content, **mode)
    except Exception as error:  # gcsfs's own: importing its class takes a second
        if type(error).__name__ != "ChecksumError":
            raise
        raise DamagedUpload(str(error)) from error
