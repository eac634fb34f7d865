"""Remove secrets from URLs, options and text of others before they are shown.

URLs in our own messages go through `public_url`. Text from other libraries may quote anything, so it goes
through `public_text`, which knows the secrets that this process was given (`keep_secrets`), also when they
are quoted, escaped or encoded.
"""

from __future__ import annotations

import html
import json
import os
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus, unquote

from framefleet.pipeline.errors import JobError, message_of, shortened
from framefleet.pipeline.guards.mistakes import nearest

HIDDEN = "***"
# The last word of a name; a letter after it makes another word, as in "keyframe".
SECRET_NAME = re.compile(
    r"(key|secret|token|passwd|password|passphrase|pwd|credential|auth|authorization|signature|sig|sas|cookie"
    r"|webhook|connection_?string)s?(?![a-z]|_env$)",  # `..._env` names a variable, whose value is secret
    re.IGNORECASE,
)
# Numbers of tokens, as endpoints name them: max_tokens, maxOutputTokens, budget_tokens.
_NUM_TOKENS = re.compile(
    r"(^|_)(max|min|num|budget)_?(new_?|input_?|output_?|completion_?|thinking_?)?tokens$", re.IGNORECASE
)
# Variables that hold a secret's path, not the secret: if the file is missing, messages must name it.
FILE_NAME = re.compile(r"_(FILE|PATH)$|^GOOGLE_APPLICATION_CREDENTIALS$", re.IGNORECASE)
MISSPELT = ("secret", "token", "password", "credential", "credentials", "signature")
# User and password of a URL. Text after a colon is a password unless it is a port. It ends at the last @,
# because people forget to escape `/`, `?` and `#` in it. Bounded, because text comes from anywhere.
USERINFO = re.compile(r"(?<=://)(?:[^/?#@\[:]*:(?!\d*(?:[/?#]|$)).{0,2048}@|[^/?#]*@)", re.DOTALL)
URL_IN_TEXT = re.compile(r"""[a-z][a-z0-9+.-]{0,30}://[^\s'"<>]+""", re.IGNORECASE)
_SECRETS = {"api_key", "apikey", "x_api_key", "authorization", "access_token", "password", "secret"}
_OF_OBJECTS = ("s3://", "s3a://", "gs://", "gcs://", "memory://", "file://", "local://")
_PART = re.compile(r" \+ (?=\w+=)")  # before a part in the name of a model: BASE + vae=FILE
MIN_LENGTH = 6  # shorter secrets would be removed from ordinary words too

_secrets: set[str] = set()


def public_url(url: str) -> str:
    """Return a URL without what may be secret: user, password and query (signatures); a path unchanged."""
    return without_query(USERINFO.sub("", url)) if "://" in url else url


def without_query(url: str) -> str:
    """Return a URL without its query. In names of objects, `?` is a character unless it looks like one."""
    plain, _, query = url.partition("?")
    return url if url.startswith(_OF_OBJECTS) and "=" not in query else plain


def without_folder(place: str) -> str:
    """Return a URL unchanged, and only the last name of a local path; so too for each part of a model."""
    place, *parts = _PART.split(place)
    if place.startswith(("/", "~", ".", "file:")):
        place = place.rstrip("/").rpartition("/")[2]
    names = (part.partition("=") for part in parts)
    return place + "".join(f" + {name}={without_folder(file)}" for name, _, file in names)


def check_url(url: str) -> None:
    """Raise JobError for a URL if it is unclear where its password ends."""
    userinfo = USERINFO.search(url)
    if userinfo and set(userinfo[0]) & set("/?#"):
        raise JobError(
            f"{public_url(url)} follows a password with / ? or # in it, or has an @ in its path",
            "set user and password in storage_options, or write them as %2F %3F %23 %40",
        )


def public_text(text: str) -> str:
    """Return text without the secrets that we know, and with its URLs as `public_url` shows them."""
    variables = {name: value for name, value in os.environ.items() if not FILE_NAME.search(name)}
    environment = {secret for secret in _worth_hiding(variables) if not os.path.exists(secret)}
    written = {form for secret in _secrets | environment for form in _written(secret)}
    for secret in sorted(written, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return URL_IN_TEXT.sub(lambda url: public_url(url[0]), text) if "://" in text else text


def holds_secret(text: str, secret: str) -> bool:
    """Return whether a text contains a secret, in a form that `public_text` hides."""
    return any(form in text for form in _written(secret))


def public_message(error: BaseException) -> str:
    """Return the message of any error without secrets, shortened."""
    return shortened(public_text(message_of(error)))


def public_value(value: Any) -> Any:
    """Return a job file's value, nested or not, without its secrets."""
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if is_secret_name(str(key)) else public_value(inner) for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [public_value(inner) for inner in value]
    return public_text(value) if isinstance(value, str) else value


def keep_secrets(values: Any) -> None:
    """From now on, hide the secrets in these values: those with a secret key, and those in URLs."""
    _secrets.update(_worth_hiding(values))


def secret_in(value: Any) -> str | None:
    """Return the first name of a secret in options of a request, which are stored; None if there is none.

    Only names that mean nothing else: many parameters have `key` or `token` in theirs.
    """
    if isinstance(value, Mapping):
        names = (str(name) for name in value if str(name).lower().replace("-", "_") in _SECRETS)
        return next(names, None) or secret_in([*value.values()])
    if isinstance(value, list):
        return next(filter(None, map(secret_in, value)), None)
    return None


@lru_cache
def is_secret_name(name: str) -> bool:
    """Return whether a value with this name gives access to something; misspelt names count too."""
    if _NUM_TOKENS.search(name):
        return False
    words = re.findall("[a-z]+", name.lower())
    return bool(SECRET_NAME.search(name)) or any(nearest(word, MISSPELT, cutoff=0.8) for word in words)


@lru_cache(maxsize=4096)
def _written(secret: str) -> frozenset[str]:
    """Return a secret in all forms that libraries write: in JSON, repr, URLs, HTML and headers."""
    raw = secret.encode(errors="surrogateescape")
    forms = {
        secret,
        " ".join(secret.split()),  # in one line
        *(json.dumps(secret, ensure_ascii=is_ascii)[1:-1] for is_ascii in (True, False)),
        *(repr(secret)[1:-1], repr(raw)[2:-1], ascii(secret)[1:-1]),
        *(quote(raw), quote(raw, safe=""), quote_plus(raw)),
        *(html.escape(secret), raw.hex(), raw.hex().upper()),
        *(form for encode in (b64encode, urlsafe_b64encode) for form in _in_base64(raw, encode)),
    }
    forms |= {json.dumps(form)[1:-1] for form in forms}  # JSON in JSON
    forms |= {re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), form) for form in forms}
    # In a text with both kinds of quotation marks, repr and JSON escape more.
    forms |= {form.replace("'", "\\'") for form in forms} | {form.replace('"', '\\"') for form in forms}
    return frozenset(form for form in forms if len(form) >= MIN_LENGTH)


def _in_base64(raw: bytes, encode: Callable[[bytes], bytes]) -> Iterator[str]:
    """Yield its base64, alone and as part of any text, e.g. after the user in `Basic` authentication."""
    yield encode(raw).decode().rstrip("=")
    for num_before, num_mixed in ((0, 0), (1, 2), (2, 3)):  # bytes before it; characters that encode both
        text = encode(bytes(num_before) + raw).decode().rstrip("=")
        yield text[num_mixed : -1 if (num_before + len(raw)) % 3 else None]


def _worth_hiding(value: Any, *, is_secret: bool = False) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _worth_hiding(inner, is_secret=is_secret or is_secret_name(str(key)))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _worth_hiding(inner, is_secret=is_secret)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        secrets = [str(value).strip()] if is_secret else []
        secrets += _secrets_of(value) if isinstance(value, str) and "://" in value else []
        yield from (secret for secret in secrets if len(secret) >= MIN_LENGTH)


def _secrets_of(url: str) -> Iterator[str]:
    """Yield the secrets of a URL, as written and unescaped, as libraries show them."""
    for userinfo in USERINFO.findall(url):
        both = userinfo.removesuffix("@")
        yield from (both, unquote(both), both.partition(":")[2], unquote(both.partition(":")[2]))
    for part in url.partition("?")[2].partition("#")[0].split("&"):
        name, _, value = part.partition("=")
        if is_secret_name(unquote(name)):
            yield from (value, unquote(value))
