"""In: one request to a store. Out: its answer, however long the store was out of reach, up to a limit.

The one place that waits: libraries below try once or twice. All threads of a process that use a store share
one `Patience`, so that the log has a line when an outage begins, one every minute, and one at its end.
Reads that only save work are not waited for (`Soon`).

An error of a store's library, or of the operating system, has one of six meanings. It is found by names and
numbers, as importing the libraries of all stores takes seconds, and most of them are optional.
"""

from __future__ import annotations

import errno
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception, wait_random_exponential

from framefleet.pipeline.errors import FULL_ERRNOS, REFUSED_ERRNOS, StoreTrouble
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.metrics import STORE_RETRIES, Counts, Spending

_UNREACHABLE_ERRNOS = {errno.EBUSY, errno.ETIMEDOUT, errno.EAGAIN, errno.ENETUNREACH, errno.EHOSTUNREACH}
# Of NFS, and what s3fs makes of a server's "internal error".
_UNREACHABLE_ERRNOS |= {errno.ESTALE, errno.EREMOTEIO}

# Classes, by name, of Python, botocore, aiohttp (below s3fs, gcsfs and adlfs), azure.core and google.auth.
_UNREACHABLE_CLASSES = {"ConnectionError", "TimeoutError", "ChecksumError", "TransportError"}
# ResponseParserError: a proxy's page instead of XML
_UNREACHABLE_CLASSES |= {"HTTPClientError", "ResponseParserError", "FlexibleChecksumError", "IncompleteRead"}
_UNREACHABLE_CLASSES |= {"ClientConnectionError", "ClientPayloadError"}
_UNREACHABLE_CLASSES |= {"ServiceRequestError", "ServiceResponseError"}
_REFUSED_CLASSES = {"PermissionError", "ClientAuthenticationError", "GoogleAuthError"}
_REFUSED_CLASSES |= {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}
_REFUSED_CLASSES |= {"TokenRetrievalError", "SSOError", "ProfileNotFound"}
_REFUSED_CLASSES |= {"NonRetryableError"}  # gcsfs's, of credentials that cannot be renewed
_INVALID_CLASSES = {"ParamValidationError", "ValidationError", "EndpointProviderError"}
_INVALID_ENDPOINT = "Invalid endpoint: "  # botocore's ValueError
_NO_TLS = "WRONG_VERSION_NUMBER"  # OpenSSL's word for an answer in plain HTTP
_FORBIDDEN = "Forbidden: "  # all that gcsfs leaves of a 403
# Names that servers use, where neither the status nor s3fs's class says enough.
_CODES: dict[str, StoreTrouble] = {
    "RequestTimeout": "unreachable",
    "IncompleteBody": "unreachable",
    "BadDigest": "unreachable",  # what arrived is not what was sent
    "Md5Mismatch": "unreachable",  # Azure's word for it
    "XAmzContentSHA256Mismatch": "unreachable",
    "ConditionalRequestConflict": "unreachable",
    "OperationAborted": "unreachable",
    "NoSuchUpload": "unreachable",  # swept, or completed by a request whose answer was lost: begun again
    "NoSuchBucket": "missing",
    "ContainerNotFound": "missing",
    "ExpiredToken": "refused",
    "ExpiredTokenException": "refused",
    "InvalidToken": "refused",
    "InvalidAccessKeyId": "refused",
    "TokenRefreshRequired": "refused",
    "QuotaExceeded": "full",
    "XMinioStorageFull": "full",
    "RevisionNotFound": "missing",  # the hub's
}
_STATUSES: dict[int, StoreTrouble] = {401: "refused", 403: "refused", 507: "full"}
_STATUSES |= dict.fromkeys((408, 429, 500, 502, 503, 504), "unreachable")

FIXES: dict[StoreTrouble, str] = {
    "unreachable": "check that the store can be reached, then run the same command again",
    "refused": "check the credentials and their rights on this output, then run the same command again",
    "full": "make room there, then run the same command again",
    "missing": "create the bucket first, or check its name",
    "invalid": "correct the URL, storage_options or AWS_ENDPOINT_URL",
    "other": "check that the store can be reached and has room, then run the same command again",
}
LOCAL_FIXES: dict[StoreTrouble, str] = {
    "unreachable": "check that its disk answers, then run the same command again",
    "refused": "check this user's rights on that folder, and its mount, then run the same command again",
    "full": "make room on that disk, then run the same command again",
    "missing": "check the path: no folder can be made there",
    "invalid": "correct the path",
    "other": "check that disk, then run the same command again",
}
# Where S3's library looks for credentials.
NO_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; or write ~/.aws/credentials; or give "
    "`storage_options: {key: ..., secret: ...}`"
)

# By the hub's names for errors.
_HUB_FIXES = {
    "GatedRepo": "accept its terms on its page at the hub, and set HF_TOKEN",
    "RepoNotFound": "check the spelling; for a private repository set HF_TOKEN, on every machine",
    "RevisionNotFound": "give a branch, a tag or a commit of it, or none for main",
}

# The settings by which botocore sends and expects checksums, each with its variable. Other stores than AWS's
# support them late.
CHECKSUM_VARIABLES = {
    "request_checksum_calculation": "AWS_REQUEST_CHECKSUM_CALCULATION",
    "response_checksum_validation": "AWS_RESPONSE_CHECKSUM_VALIDATION",
}
_OF_OTHER_BYTES = {"SignatureDoesNotMatch", "XAmzContentSHA256Mismatch"}  # as the headers are signed, too
_CHECKSUM_FIX = "if this store does not know S3's newer checksum headers, set "
_CHECKSUM_FIX += " and ".join(f"{variable}=when_required" for variable in CHECKSUM_VARIABLES.values())

# The same command would fail again until somebody changes something.
LASTING: tuple[StoreTrouble, ...] = ("refused", "missing", "invalid")


class DamagedUpload(ConnectionError):
    """What is stored is not what was sent; to be sent again."""


def trouble_of(error: BaseException) -> StoreTrouble:
    """Return what an error is about; for FileNotFoundError, only if more than one object is missing."""
    for code, status in answers_of(error):
        if trouble := _CODES.get(code) or _STATUSES.get(status):
            return trouble
    if _NO_TLS in str(error):
        return "invalid"
    names = {kind.__name__ for kind in type(error).__mro__}
    number = error.errno if isinstance(error, OSError) else None
    if number in FULL_ERRNOS:
        return "full"
    # Before those that are refused: google.auth's TransportError is both.
    if names & _UNREACHABLE_CLASSES or number in _UNREACHABLE_ERRNOS:
        return "unreachable"
    if names & _REFUSED_CLASSES or number in REFUSED_ERRNOS or str(error).startswith(_FORBIDDEN):
        return "refused"
    if names & _INVALID_CLASSES or str(error).startswith(_INVALID_ENDPOINT):
        return "invalid"
    return "other"


def why_unread(error: Exception, fix: str = "check the path and the access") -> tuple[str, str]:
    """Return why fsspec could not read a place, and what to do about it; `fix` if we know nothing better."""
    if isinstance(error, ImportError):
        return "its package is not installed", str(error)
    return public_text(in_a_line(reason_of(error))), better_fix(error) or fix


def reason_of(error: BaseException) -> BaseException:
    """Return the error with the reason: libraries turn refusals into "not found", or have no text at all."""
    is_hidden = isinstance(error, FileNotFoundError) and trouble_of(error) != "other"
    is_hidden = is_hidden or str(error) == "None"  # Ceph gives s3fs codes and no text
    return error.__cause__ if is_hidden and error.__cause__ else error


def better_fix(error: BaseException) -> str | None:
    """Return a better fix than the one for an error's kind, if the error says more."""
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return NO_CREDENTIALS
    if may_refuse_checksums(error) and trouble_of(error) != "refused":
        return _CHECKSUM_FIX
    if any(code == "RequestTimeTooSkewed" for code, _ in answers_of(error)):
        return "set the clock of this machine, e.g. by NTP, then run the same command again"
    return _HUB_FIXES.get(said_by_server(reason_of(error))[0])


def may_refuse_checksums(error: BaseException) -> bool:
    """Return whether a store that does not know S3's newer checksums answers like this.

    Stores differ: "InvalidArgument: Unsupported header", "NotImplemented", "SignatureDoesNotMatch", ...
    """
    errors = (error, error.__cause__)
    sources = [source for source in errors if isinstance(getattr(source, "response", None), dict)]
    return any(
        code in _OF_OTHER_BYTES or (code not in _CODES and status in (400, 411, 501))
        for code, status in map(said_by_server, sources)
    )


def in_a_line(error: BaseException) -> str:
    """Return the text of an error in one line, without the request id and the XML of Azure's."""
    if _NO_TLS in str(error):
        return "this endpoint speaks http, not https"
    message = getattr(error, "server_message", None) or str(error)  # of the hub, whose text is a page
    return " ".join(message.partition("\nRequestId:")[0].split())


def said_by_server(error: BaseException | None) -> tuple[str, int]:
    """Return the server's name for an error, and its HTTP status; "" and 0 if these are unknown."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return str(response.get("Error", {}).get("Code", "")), status
    names = ("status_code", "status", "code")  # azure's, aiohttp's, gcsfs's
    numbers = (str(getattr(source, name, "")) for source in (error, response) for name in names)
    status = next((int(number) for number in numbers if number.isdecimal()), 0)
    headers = getattr(response, "headers", None) or {}  # of the hub's client
    code = getattr(error, "error_code", None) or headers.get("X-Error-Code") or ""
    return str(getattr(code, "value", code)), status  # azure's are enumerated


def answers_of(error: BaseException) -> Iterator[tuple[str, int]]:
    """Yield what `said_by_server` returns for an error and for its cause, where s3fs keeps the answer."""
    return map(said_by_server, (error, error.__cause__))


OUTAGE_S = 600.0  # servers and networks are restarted in minutes; a fleet that ends loads its models again
# A store that has never answered may be a mistake in the job: long enough for a gateway's restart only.
FIRST_ANSWER_S = 30.0
# Some ten seconds: a cluster's gateways learn new keys, and files of credentials are renewed, one by one.
MAX_REFUSALS = 8
_FIRST_REFUSALS = 2
TOLD_AFTER_S, TOLD_EVERY_S = 10.0, 60.0
_LOOK_S = 2.0  # between two looks at requests under way
# Never the same for two: thousands of writers must not come back at once.
_PAUSE = wait_random_exponential(multiplier=0.2, max=5)

log = logging.getLogger(__name__)

Reply = TypeVar("Reply")
# An entry of a hundred megabytes takes seconds; so does the work that it saves.
WITHIN_S = 10.0


class Patience:
    """Repeats requests to one store, for a limited time. For several threads."""

    def __init__(self, where: str, limit_s: float) -> None:
        self.where = where
        self.limit_s = limit_s  # how long it may be out of reach
        self.has_answered = False  # ever, to this process or to the one whose store this is a copy of
        self.counts = Counts()
        self._answered_at = -math.inf  # when it last did
        self._lock = threading.Lock()  # guards what is below
        # When it failed, or should have answered, for the first time since it last answered anybody.
        self._silent_since: float | None = None
        self._logged_at: float | None = None
        self._is_logged = False  # whether the log says that it is silent now
        self._under_way = dict[object, float]()  # small requests: when they were made
        self._watcher: threading.Thread | None = None

    def ride_out(
        self,
        ask: Callable[[], Reply],
        *,
        reopen: Callable[[], None] | None = None,
        is_small: bool = False,
    ) -> Reply:
        """Return what `ask` returns; raise what it raises when that will not pass, or not in time.

        reopen: reads credentials again, before a refused request is repeated; None: refusals are final.
        is_small: it is answered at once, so that the store is silent while it is not.
        A request that has waited for too long is made once more if others were answered while it waited.
        """
        failing_since: float | None = None
        asked_at, is_last = 0.0, False
        num_refused = 0

        def ask_once() -> Reply:
            nonlocal asked_at
            asked_at = time.monotonic()
            with self._watched() if is_small else nullcontext():
                return ask()

        def may_pass(error: BaseException) -> bool:
            nonlocal failing_since, is_last, num_refused
            trouble = trouble_of(error)
            if trouble not in ("unreachable", "refused"):
                return False
            if failing_since is None:
                failing_since = time.monotonic()
            if trouble == "unreachable":
                will_pass = self._is_in_time(f"{type(error).__name__}: {in_a_line(error)}", failing_since)
                if not will_pass and not is_last:
                    will_pass = is_last = self._answered_at > asked_at
            else:
                max_refusals = MAX_REFUSALS if self.has_answered else _FIRST_REFUSALS
                will_pass = reopen is not None and num_refused < max_refusals
            if will_pass and trouble == "refused" and reopen:
                num_refused += 1
                reopen()
            self.counts.add(STORE_RETRIES, will_pass)
            return will_pass

        try:
            answer = Retrying(retry=retry_if_exception(may_pass), wait=_PAUSE, reraise=True)(ask_once)
        except FileNotFoundError:
            self._note_answer()
            raise
        self._note_answer()
        return answer

    @property
    def silent_s(self) -> float:
        """For how many seconds the store has not answered this process; 0 while it does."""
        since = self._silent_since
        return 0.0 if since is None else time.monotonic() - since

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Notice if a small request is not answered: its library waits for a minute or two."""
        mine = object()
        with self._lock:
            self._under_way[mine] = time.monotonic()
            if self._watcher is None or not self._watcher.is_alive():  # as in a process that was forked
                self._watcher = threading.Thread(target=self._watch, name="silent store", daemon=True)
                self._watcher.start()
        try:
            yield
        finally:
            with self._lock:
                del self._under_way[mine]

    def _watch(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            with self._lock:
                if not self._under_way:
                    self._watcher = None
                    return
                since = max(self._answered_at, min(self._under_way.values()))
                is_silent = time.monotonic() - since >= TOLD_AFTER_S
                if is_silent and self._silent_since is None:
                    self._silent_since = since
            if is_silent:
                self._is_in_time("no answer to a small request", since)

    def _is_in_time(self, why: str, failing_since: float) -> bool:
        """Return whether a request that has failed since then is repeated; log that now and then.

        why: what happened last.
        """
        now = time.monotonic()
        limit_s = self.limit_s if self.has_answered else min(self.limit_s, FIRST_ANSWER_S)
        with self._lock:
            if self._silent_since is None:
                self._silent_since = now
            failing_s = now - min(self._silent_since, failing_since)
            is_due = self._logged_at is None or now - self._logged_at >= TOLD_EVERY_S
            is_logged = TOLD_AFTER_S <= failing_s < limit_s and is_due
            if is_logged:
                self._logged_at, self._is_logged = now, True
        if is_logged:
            log.warning(
                "%s has not answered for %.0f s (%s); trying for another %.0f s, and working on as far "
                "as possible",
                self.where,
                failing_s,
                public_text(why),
                limit_s - failing_s,
            )
        return failing_s < limit_s

    def _note_answer(self) -> None:
        self.has_answered, self._answered_at = True, time.monotonic()
        with self._lock:
            outage_s, is_over = self.silent_s, self._is_logged
            self._silent_since, self._is_logged = None, False
        if is_over:
            log.warning("%s answers again, after %.0f s", self.where, outage_s)


class Soon:
    """Reads for one thread in another, so that a store that is out of reach holds up nothing.

    While one answer is overdue, it makes no other requests: the store would not answer them either.
    """

    def __init__(self, name: str, spending: Spending = nullcontext) -> None:
        self._reader = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._spending = spending
        self._overdue: Future[Any] | None = None

    def ask(self, read: Callable[[], Reply | None]) -> Reply | None:
        """Return what `read` returns, raise what it raises; None if that takes too long."""
        if self._overdue and not self._overdue.done():
            return None
        answer = self._reader.submit(read)
        with self._spending("store"):
            is_late = not wait([answer], WITHIN_S).done
        if is_late:
            self._overdue = answer
            return None
        return answer.result()
