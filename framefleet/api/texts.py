"""Texts that others read or wrote: JSON, secrets, misspelt names; and processes and proxies."""

from typing import TYPE_CHECKING

from framefleet.lazy_names import lazy_names

if TYPE_CHECKING:
    from framefleet.pipeline.guards.json_text import (
        canonical_json as canonical_json,
        parse_json as parse_json,
        parse_object as parse_object,
    )
    from framefleet.pipeline.guards.mistakes import (
        did_you_mean as did_you_mean,
        either as either,
        nearest as nearest,
    )
    from framefleet.pipeline.guards.own_python import python as python
    from framefleet.pipeline.guards.proxy import proxy_of as proxy_of
    from framefleet.pipeline.guards.redaction import (
        keep_secrets as keep_secrets,
        public_text as public_text,
        public_url as public_url,
        secret_in as secret_in,
        without_folder as without_folder,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
