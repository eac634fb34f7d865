"""What a job needs of others: a store that can be written, the hub of models, and the right time."""

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

_PATIENCE_S = 4.0  # less than a check may take, of which there are several requests
_SAMPLE_BYTES = 4 << 20  # a clip of some seconds
_SLOW_MB_S, _SLOW_S = 1.0, 1.0
# Stores refuse requests that are 15 minutes off (S3, Azure); a Date header has whole seconds.
_OFF_S, NEAR_S = 300.0, 5.0


def inspect_store(url: str, options: Mapping[str, Any]) -> Iterator[CheckResult]:
    """Yield whether an output can be written, read, listed and locked there, and how fast.

    What it writes lies in a folder of its own, which it deletes, as it does folders on the way there.
    """
    from framefleet.api.outputs import Store

    store, folder = Store(url, options, outage_s=_PATIENCE_S), f".doctor-{secrets.token_hex(8)}"
    absent = [] if "://" in url else [one for one in (Path(url), *Path(url).parents) if not one.exists()]
    small_s = _seconds(lambda: store.write(f"{folder}/small", b"1"))  # else there is nothing to delete
    try:
        if f"{folder}/small" not in store.list(folder):
            yield error(
                f"{store.url_of('')} does not list a file that was just written",
                "use another store: records are listed",
            )
        if not store.creates_in_one_step(f"{folder}/created"):
            yield warning(
                "the server overwrites objects despite If-None-Match: two drivers that begin at the same "
                "moment may both get the output",
                "start one driver at a time, or use a store with conditional writes",
            )
        write_s = _seconds(lambda: store.write(f"{folder}/large", os.urandom(_SAMPLE_BYTES)))
        read_s = _seconds(lambda: store.read(f"{folder}/large"))
    finally:
        with suppress(FramefleetError):  # said already
            store.delete_all(folder)
        with suppress(OSError):  # somebody else has begun to write there
            for made in absent:
                made.rmdir()
    write, read = _SAMPLE_BYTES / 1e6 / write_s, _SAMPLE_BYTES / 1e6 / read_s
    text = f"write {write:,.0f} MB/s, read {read:,.0f} MB/s, {small_s * 1000:.0f} ms for a small file"
    if min(write, read) < _SLOW_MB_S or small_s > _SLOW_S:
        yield warning(f"slow: {text}", "use a store that is nearer to the machines")
    else:
        yield ok(f"{store.url_of('')}: {text}")


def _seconds(request: Callable[[], object]) -> float:
    began = time.monotonic()
    request()
    return max(time.monotonic() - began, 1e-6)


def inspect_hub(models: Collection[Mapping[str, Any]]) -> Iterator[CheckResult]:
    """Yield whether each of these models is there, in the hub or elsewhere; of none, whether the hub answers.

    models: as `open_source` takes each.
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
        yield ok("not asked: HF_HUB_OFFLINE is set")
        return
    fix = "check the connection, HF_ENDPOINT and HF_TOKEN; a model in a folder needs no hub"
    try:
        if get_token():
            yield ok(f"{constants.ENDPOINT} knows the token of {HfApi().whoami()['name']}")
        else:
            _date_of(constants.ENDPOINT)
            yield ok(f"{constants.ENDPOINT} answers; no token is set, which gated models need")
    except Exception as failure:  # the client raises what its HTTP library does
        message = public_text(f"{type(failure).__name__}: {failure}").partition("\n")[0]
        yield warning(f"{constants.ENDPOINT} does not answer: {message}", fix)


def inspect_clock(url: str | None, options: Mapping[str, Any]) -> Iterator[CheckResult]:
    """Yield how far this machine's clock is from that of the store, or else of the hub."""
    from huggingface_hub import constants

    of_store = _endpoint(url or "", options)
    server = of_store or constants.ENDPOINT
    began = time.time()
    try:
        theirs = _date_of(server)
    except OSError as failure:
        message = f"{public_url(server)} does not answer: {public_text(str(failure))}"
        fix = f"check whether {'the store' if of_store else 'the hub'} can be reached, or give --store URL"
        yield warning(message if of_store else f"not compared: {message}", fix)
        return
    if theirs is None:
        yield warning(f"{public_url(server)} does not say the time", "give --store URL of another server")
        return
    offset_s = (began + time.time()) / 2 - theirs
    text = f"{abs(offset_s):.0f} s {'ahead of' if offset_s > 0 else 'behind'} {public_url(server)}"
    fix = "synchronize the clock: timedatectl set-ntp true, or install chrony"
    if abs(offset_s) > _OFF_S:
        yield error(f"the clock is {text}: stores refuse requests, and certificates look expired", fix)
    elif abs(offset_s) > NEAR_S:
        yield warning(f"the clock is {text}", fix)
    else:
        yield ok(f"as that of {public_url(server)}")


def _endpoint(url: str, options: Mapping[str, Any]) -> str | None:
    """Return the web server of a store; None for a folder and others."""
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
    """Return the time by a web server's Date header; None where it sends none. Raises OSError."""
    try:
        with urlopen(Request(server, method="HEAD"), timeout=_PATIENCE_S) as answer:
            date = answer.headers["Date"]
    except HTTPError as answer:  # 403 of a store that wants a signature: it has a date too
        date = answer.headers["Date"]
    return parsedate_to_datetime(date).astimezone(UTC).timestamp() if date else None
