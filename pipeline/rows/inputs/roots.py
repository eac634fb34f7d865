"""From a cell's path or URL and the job's roots to the place that may be read, or to why it is refused.

A table may come from anywhere, so its paths and URLs are not trusted. Everything below a root (a folder or a
URL) may be read; elsewhere only http and https, and the code that reads them checks the address.
"""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from yarl import URL

from framefleet.pipeline.errors import InputError, JobError
from framefleet.pipeline.guards.redaction import USERINFO, check_url, public_url

SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
LOCAL, WEB = ("file", "local"), ("http", "https")
MAX_LENGTH = 4096  # Linux's longest path; URLs are shorter, and pictures in `data:` URLs are longer
MAX_BYTES = 256 << 20  # of a file
MAX_IMAGE_PIXELS = 1 << 26  # 8192 x 8192, 200 MB; Pillow itself warns from 89 million on
MAX_FRAME_PIXELS = 1 << 24  # of a video's frame, 4096 x 4096: 81 of these take 4 GB
MAX_PIXELS = 1 << 32  # of all frames together: checking that they can be decoded takes a minute or two
ADD = "add {!r} to inputs.roots if this table may read there"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFile:
    """path: without symlinks and `..`."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """root: one of the roots, as the job has it. path: relative to it."""

    root: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebFile:
    """is_trusted: below a root, so any address is allowed, and the URL has the root's user and password."""

    url: URL
    is_trusted: bool


class Roots:
    """The folders and URLs below which a table may read.

    base: where relative paths start; by default, the first root. It is a root too, unless it is on the web:
    the host name of a table may lead to another address by the time its rows are read.
    """

    def __init__(self, roots: Sequence[str], base: str | None = None) -> None:
        # Absolute, because workers run in other folders.
        absolute = [_absolute(root, "inputs.roots has") for root in roots]
        self._base = _absolute(base, "the table is in") if base is not None else next(iter(absolute), None)
        if self._base is not None and not any(_scheme(link) in WEB for link in self._base.split("::")):
            absolute = [self._base, *absolute]
        distinct = tuple(dict.fromkeys(absolute))
        self._folders = tuple(root for root in distinct if "://" not in root)
        self._web = tuple(URL(root) for root in distinct if _scheme(root) in WEB)
        self.stored = tuple(root for root in distinct if "://" in root and _scheme(root) not in WEB)

    def place(self, uri: str) -> LocalFile | StoredFile | WebFile:
        """Return the place of `uri`. Raises InputError if this table may not read there."""
        if not uri.strip():
            raise InputError("it is blank", "write a path or a URL, or leave the cell empty")
        if len(uri) > MAX_LENGTH:
            raise InputError(f"it is longer than {MAX_LENGTH} characters", "use a path or a URL")
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in uri):
            raise InputError("it contains control characters", "remove them")
        if USERINFO.search(uri):
            raise _has_userinfo()
        scheme = _scheme(uri)
        if "://" not in uri:
            return self._relative(uri)
        if scheme in LOCAL:
            path = uri.partition("://")[2]
            if not os.path.isabs(path):
                raise InputError("it has no absolute path", "write file:///folder/name, or only the path")
            return self._local(path)
        if scheme in WEB:
            return self.web(_url(uri))
        if scheme is None or "::" in uri:
            raise InputError("it chains several locations", "use one path or URL")
        _check_names(uri.partition("://")[2])
        return self._stored(uri)

    def web(self, url: URL) -> WebFile:
        """Return the place of an absolute URL. Call it again for the target of every redirect."""
        if url.scheme not in WEB or not url.host:
            raise InputError(f"it leads to {public_url(str(url))!r}", "use an http or https URL with a host")
        if url.user is not None or url.password is not None:
            raise _has_userinfo()
        url = url.with_fragment(None)
        for root in self._web:
            if _is_below(url, root):
                return WebFile(url=url.with_user(root.user).with_password(root.password), is_trusted=True)
        if self._base is not None and _scheme(self._base) in WEB and _is_below(url, base := URL(self._base)):
            url = url.with_user(base.user).with_password(base.password)
        return WebFile(url=url, is_trusted=False)

    def _relative(self, uri: str) -> LocalFile | StoredFile | WebFile:
        if os.path.isabs(uri):
            return self._local(uri)
        if self._base is None:
            raise InputError("it is relative to no known folder", "add its folder to inputs.roots")
        if "://" not in self._base:
            return self._local(os.path.join(self._base, uri))
        if _scheme(self._base) in WEB:
            return self.web(URL(self._base + "/").with_user(None).join(_url(uri)))
        _check_names(uri)
        return self._stored(f"{USERINFO.sub('', self._base)}/{uri}")

    def _local(self, path: str) -> LocalFile:
        try:
            real = os.path.realpath(path)
        except (OSError, ValueError):  # what no file system can hold
            raise InputError("it is not a path", "use a path or a URL") from None
        if any(Path(real).is_relative_to(os.path.realpath(folder)) for folder in self._folders):
            return LocalFile(path=real)
        raise InputError("it lies outside of inputs.roots", ADD.format(os.path.dirname(real)))

    def _stored(self, url: str) -> StoredFile:
        place = _normal(url)
        for root in self.stored:
            prefix = _normal(USERINFO.sub("", root)) + "/"
            if place.startswith(prefix):
                return StoredFile(root=root, path=place.removeprefix(prefix))
        scheme, _, rest = place.partition("://")
        folder = public_url(f"{scheme}://{posixpath.dirname(rest) or rest}")
        raise InputError("it lies outside of inputs.roots", ADD.format(folder))


def _absolute(root: str, subject: str) -> str:
    """Return a root with an absolute path. subject: the start of a message, before the root."""
    scheme = _scheme(root)
    if scheme in LOCAL or "://" not in root:
        path = root.partition("://")[2] if scheme else root
        if not path:
            raise JobError(f"{subject} {root!r}, which is not a folder", "use a folder, e.g. images/")
        return os.path.abspath(os.path.expanduser(path))
    check_url(root)
    if not root.partition("://")[2].strip("/"):
        raise JobError(f"{subject} {root!r}, which is everything", "name a host or a bucket")
    if scheme in WEB:
        try:
            return str(URL(root).with_query(None).with_fragment(None)).rstrip("/")
        except ValueError as error:
            raise JobError(f"{subject} {public_url(root)!r}: {error}", "correct the URL") from None
    return root.rstrip("/")


def _scheme(uri: str) -> str | None:
    match = SCHEME.match(uri)
    return match[1].lower() if match else None


def _has_userinfo() -> InputError:
    problem = "it contains a user or a password"
    return InputError(problem, "remove them; credentials belong in the job's storage_options")


def _url(uri: str) -> URL:
    try:
        return URL(uri)
    except ValueError:  # its text quotes the URL, maybe with a signature
        raise InputError("it is not a URL", "check its host and port") from None


def _is_below(url: URL, root: URL) -> bool:
    """Return whether a URL is below a root, however the server decodes escapes in it."""
    if url.origin() != root.origin():
        return False
    path = url.raw_path  # yarl has resolved `..` and `%2e%2e`
    if not path.startswith(root.raw_path.rstrip("/") + "/"):
        return False
    while (decoded := unquote(path)) != path:  # some servers decode twice
        path = decoded
    # For some servers `\` is a separator, and for Java's `..;` is `..`.
    return not any(part.partition(";")[0] == ".." for part in re.split(r"[/\\]", path))


def _normal(url: str) -> str:
    """Return a URL of an object store with `..` resolved, its scheme in lower case."""
    scheme, _, rest = url.partition("://")
    return f"{scheme.lower()}://{posixpath.normpath(rest)}"


def _check_names(path: str) -> None:
    if "" in path.split("/"):
        raise InputError("its path has an empty name", "write single slashes, and none at the end")


def too_many_bytes(max_bytes: int) -> InputError:
    return InputError(f"it is larger than {max_bytes:,} bytes", "make it smaller: cut it or compress it")
