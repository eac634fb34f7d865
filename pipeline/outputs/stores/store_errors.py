"""In: what a store's library, or the operating system, raised. Out: what it means, in one of five words.

By names and numbers: importing the libraries of all stores takes seconds, and most of them are optional.
"""

from __future__ import annotations

import errno
from typing import Any

from framefleet.pipeline.errors import StoreTrouble

_UNREACHABLE_ERRNOS = {errno.EBUSY, errno.ETIMEDOUT, errno.EAGAIN, errno.ENETUNREACH, errno.EHOSTUNREACH}
# Of NFS, and what s3fs makes of a server's "internal error".
_UNREACHABLE_ERRNOS |= {errno.ESTALE, getattr(errno, "EREMOTEIO", errno.ETIMEDOUT)}
_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT}
_REFUSED_ERRNOS = {errno.EACCES, errno.EPERM, errno.EROFS}

# Classes, by name, of Python, botocore, aiohttp (below s3fs, gcsfs and adlfs), azure.core and google.auth.
_UNREACHABLE_CLASSES = {
    "ConnectionError",
    "TimeoutError",
    "HTTPClientError",
    "ResponseParserError",  # a page of a proxy's in the place of XML
    "FlexibleChecksumError",
    "ChecksumError",
    "IncompleteRead",
    "ClientConnectionError",
    "ClientPayloadError",
    "ServiceRequestError",
    "ServiceResponseError",
    "TransportError",
}
_REFUSED_CLASSES = {
    "PermissionError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "TokenRetrievalError",
    "SSOError",
    "ProfileNotFound",
    "NonRetryableError",  # gcsfs's, of credentials that cannot be renewed
    "ClientAuthenticationError",
    "GoogleAuthError",
}
_FORBIDDEN = "Forbidden: "  # all that gcsfs leaves of a 403
# What S3 servers call it, where neither the status nor s3fs's class says enough.
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
}
_STATUSES: dict[int, StoreTrouble] = {
    401: "refused",
    403: "refused",
    408: "unreachable",
    429: "unreachable",
    500: "unreachable",
    502: "unreachable",
    503: "unreachable",
    504: "unreachable",
    507: "full",
}

FIXES: dict[StoreTrouble, str] = {
    "unreachable": "check that the store can be reached, then run the same command again",
    "refused": "check the credentials and their rights on this output, then run the same command again",
    "full": "make room there, then run the same command again",
    "missing": "make the bucket first, or check its name",
    "other": "check that the store can be reached and has room, then run the same command again",
}
LOCAL_FIXES: dict[StoreTrouble, str] = {
    "unreachable": "check that its disk answers, then run the same command again",
    "refused": "check this user's rights on that folder, then run the same command again",
    "full": "make room on that disk, then run the same command again",
    "missing": "check the path: no folder can be made there",
    "other": "check that disk, then run the same command again",
}


class DamagedUpload(ConnectionError):
    """What is stored is not what was sent; to be sent again."""


def trouble_of(error: BaseException) -> StoreTrouble:
    """Return what an error is about. Of FileNotFoundError only where more than one object is missing."""
    for one in (error, error.__cause__):  # s3fs keeps what the server said in the cause
        code, status = said_by_server(one)
        if trouble := _CODES.get(code) or _STATUSES.get(status):
            return trouble
    names = {kind.__name__ for kind in type(error).__mro__}
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL_ERRNOS:
        return "full"
    # Before those that are refused: google.auth's TransportError is both.
    if names & _UNREACHABLE_CLASSES or number in _UNREACHABLE_ERRNOS:
        return "unreachable"
    if names & _REFUSED_CLASSES or number in _REFUSED_ERRNOS or str(error).startswith(_FORBIDDEN):
        return "refused"
    return "other"


def in_a_line(error: BaseException) -> str:
    """Return what an error says, without the id of the request and the XML that Azure's bring along."""
    return " ".join(str(error).partition("\nRequestId:")[0].split())


def said_by_server(error: BaseException | None) -> tuple[str, int]:
    """Return what the server called an error, and its HTTP status; "" and 0 where nothing says."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return str(response.get("Error", {}).get("Code", "")), status
    names = ("status_code", "status", "code")  # azure's, aiohttp's, gcsfs's
    numbers = (str(getattr(error, name, "")) for name in names)
    status = next((int(number) for number in numbers if number.isdecimal()), 0)
    code = getattr(error, "error_code", None) or ""
    return str(getattr(code, "value", code)), status  # azure's are enumerated
