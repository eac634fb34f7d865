"""From a URL to the proxy that the environment names for it.

aiohttp's `trust_env` would also send passwords from ~/.netrc to any host that has an entry there.
"""

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def proxy_of(url: str) -> str | None:
    """Return the value of `http_proxy` or `https_proxy`; None if unset, or if `no_proxy` has the host."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
