"""From a URL to the proxy that the environment names for it.

In place of aiohttp's `trust_env`, which also sends passwords of ~/.netrc to whatever host has an entry there.
"""

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def proxy_of(url: str) -> str | None:
    """Return what `http_proxy` or `https_proxy` says; None: nothing, or `no_proxy` has the host."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
