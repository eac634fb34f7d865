"""Check the services that a job needs: a writable store, the model hub, and the right time."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from framefleet.api.errors import FramefleetError
from framefleet.api.texts import public_text, public_url
from framefleet.plugins.doctor.machine import CheckResult, error, ok, warning

_PATIENCE_S = 4.0  # per request; a check makes several within its limit
_SAMPLE_BYTES = 4 << 20  # like a clip of some seconds
_SLOW_MB_S, _SLOW_S = 1.0, 1.0
# Stores refuse requests that are 15 minutes off (S3, Azure). A Date header has whole seconds.
_OFF_S, NEAR_S = 300.0, 5.0


def inspect_store(url: str, options: Mapping[str, Any]) -> Iterator[CheckResult]:
    """Yield whether an output can be written, read, listed and locked there, and how fast.

    Writes to a separate folder, and deletes it and any parent folders that it created.
    """
    from framefleet.api.outputs import Store

    store, folder = Store(url, options, outage_s=_PATIENCE_S), f".doctor-{secrets.token_hex(8)}"
    absent = [] if "://" in url else [one for one in (Path(url), *Path(url).parents) if not one.exists()]
    small_s = _seconds(lambda: store.write(f"{folder}/small", b"1"))  # raises before anything is there
    try:
        if f"{folder}/small" not in store.list(folder):
            yield error(
                f"{store.url_of('')} does not list a file that was just written",
                "use another store; framefleet finds records by listing them",
            )
        if not store.creates_in_one_step(f"{folder}/created"):
            yield warning(
                "the server overwrites objects despite If-None-Match, so two drivers that start at the same "
                "moment may both get the output",
                "start one driver at a time, or use a store with conditional writes",
            )
        write_s = _seconds(lambda: store.write(f"{folder}/large", os.urandom(_SAMPLE_BYTES)))
        read_s = _seconds(lambda: store.read(f"{folder}/large"))
    finally:
        with suppress(FramefleetError):  # reported already
            store.delete_all(folder)
        with suppress(OSError):  # another program writes there now
            for made in absent:
                made.rmdir()
    write, read = _SAMPLE_BYTES / 1e6 / write_s, _SAMPLE_BYTES / 1e6 / read_s
    text = f"write {write:,.0f} MB/s, read {read:,.0f} MB/s, {small_s * 1000:.0f} ms for a small file"
    if min(write, read) < _SLOW_MB_S or small_s > _SLOW_S:
        yield warning(f"slow: {text}", "use a store that is closer to the machines")
    else:
        yield ok(f"{store.url_of('')}: {text}")


def _seconds(request: Callable[[], object]) -> float:
    began = time.monotonic()
    request()
    return max(time.monotonic() - began, 1e-6)


def inspect_hub(models: Collection[Mapping[str, Any]]) -> Iterator[CheckResult]:
    """Yield whether each of these models can be opened; without models, whether the hub answers.

    models: arguments of `open_source`.
    """
    from huggingface_hub import HfApi, constants, get_token

    from framefleet.pipeline.model.sources.source import open_source

    for model in models:
        try:
            yield ok(f"{open_source(**model).name} can be opened")
        except FramefleetError as failure:
            yield error(failure.problem, failure.fix)
    if models:
        return
    if constants.HF_HUB_OFFLINE:
        yield ok("not checked, as HF_HUB_OFFLINE is set")
        return
    fix = "check the connection, HF_ENDPOINT and HF_TOKEN; a model in a folder needs no hub"
    try:
        if get_token():
            yield ok(f"{constants.ENDPOINT} knows the token of {HfApi().whoami()['name']}")
        else:
            _date_of(constants.ENDPOINT)
            yield ok(f"{constants.ENDPOINT} answers; no token is set, which gated models need")
    except Exception as failure:  # the client passes on its HTTP library's errors
        message = public_text(f"{type(failure).__name__}: {failure}").partition("\n")[0]
        yield warning(f"{constants.ENDPOINT} does not answer: {message}", fix)


def inspect_clock(url: str | None, options: Mapping[str, Any]) -> Iterator[CheckResult]:
    """Yield the difference of this machine's clock from that of the store, or else of the hub."""
    from huggingface_hub import constants

    of_store = _endpoint(url or "", options)
    server = of_store or constants.ENDPOINT
    began = time.time()
    try:
        theirs = _date_of(server)
    except OSError as failure:
        message = f"{public_url(server)} does not answer: {public_text(str(failure))}"
        fix = f"check whether {'the store' if of_store else 'the hub'} can be reached, or add --store URL"
        yield warning(message if of_store else f"not compared: {message}", fix)
        return
    if theirs is None:
        yield warning(f"{public_url(server)} does not send the time", "use another server for --store")
        return
    offset_s = (began + time.time()) / 2 - theirs
    text = f"{abs(offset_s):.0f} s {'ahead of' if offset_s > 0 else 'behind'} {public_url(server)}"
    fix = "synchronize the clock: timedatectl set-ntp true, or install chrony"
    if abs(offset_s) > _OFF_S:
        yield error(f"the clock is {text}, so stores refuse requests, and certificates look expired", fix)
    elif abs(offset_s) > NEAR_S:
        yield warning(f"the clock is {text}", fix)
    else:
        yield ok(f"same time as {public_url(server)}")


def _endpoint(url: str, options: Mapping[str, Any]) -> str | None:
    """Return the web server of a store; None for a folder and other places."""
    scheme = url.partition("://")[0]
    if scheme in ("s3", "s3a"):
        endpoint = options.get("endpoint_url") or options.get("client_kwargs", {}).get("endpoint_url")
        variables = (os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
        return endpoint or next(filter(None, variables), "https://s3.amazonaws.com")
    if scheme in ("gs", "gcs"):
        return str(options.get("endpoint_url") or "https://storage.googleapis.com")
    if scheme in ("az", "abfs", "abfss"):
        account = options.get("account_name") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
        return f"https://{account}.blob.core.windows.net" if account else None
    return url if scheme in ("http", "https") else None


def _date_of(server: str) -> float | None:
    """Return the time in a web server's Date header, or None. Raises OSError."""
    try:
        with urlopen(Request(server, method="HEAD"), timeout=_PATIENCE_S) as answer:
            date = answer.headers["Date"]
    except HTTPError as answer:  # e.g. 403 of a store that needs a signature; it also has a date
        date = answer.headers["Date"]
    return parsedate_to_datetime(date).astimezone(UTC).timestamp() if date else None
