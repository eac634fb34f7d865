"""The job's settings for servers, below `engine:`, and the fields that the servers say they accept."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from contextlib import closing
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from framefleet.api.clips import Request
from framefleet.api.engines import Engine, engine_spec, is_plain_address
from framefleet.api.errors import JobError, RowError
from framefleet.api.models import PipelineSpec
from framefleet.api.outputs import Store
from framefleet.api.sections import Strict
from framefleet.api.texts import keep_secrets, secret_in
from framefleet.plugins.engines.session import Session
from framefleet.plugins.engines.web import Silent, Web
from framefleet.plugins.engines.words import length_asked, parameters_for

log = logging.getLogger(__name__)

ROW_RULES = "framefleet.plugins.engines.words:clip_rules"
_OURS = {"prompt", "model", "seed", "n"}


def _checked_url(url: str) -> str:
    if not is_plain_address(url):  # as job.json stores it
        raise ValueError("an address such as http://gpu-1:8000/v1, without user, password and query")
    return url.rstrip("/")


class Price(Strict):
    """Prices of a server, in any currency."""

    clip: float = Field(default=0.0, ge=0, description="Price of a clip, however long.")
    second: float = Field(default=0.0, ge=0, description="Price per second of a clip.")


class _Servers(Engine):
    """Servers with one model. Their addresses and the form of requests may change from run to run."""

    kind: ClassVar[Literal["videos", "images"]]
    urls: Annotated[list[Annotated[str, AfterValidator(_checked_url)]], Field(min_length=1)] = Field(
        description="Addresses of servers with the same model, without /videos, e.g. http://gpu-1:8000/v1."
    )
    api_key_env: str | None = Field(
        default=None, description="Environment variable with the key. The key itself is never stored."
    )
    parallel: int = Field(default=1, ge=1, le=256, description="Maximum number of clips per server at once.")
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="More fields for each request, e.g. {extra_params: {...}}."
    )
    body: Literal["auto", "form", "json"] = Field(
        default="auto", description="Format of requests. auto: one that the server says it accepts."
    )
    poll_s: float = Field(default=2.0, gt=0, description="Seconds between two polls for a clip.")
    timeout_s: float = Field(default=3600.0, gt=0, description="Seconds that one clip may take.")
    patience_s: float = Field(
        default=600.0,
        gt=0,
        description="Seconds to wait for a server that does not answer, or still loads its model, before its "
        "clips are created on another.",
    )
    price: Price | None = Field(default=None, description="Prices of the servers; needed for `max_cost`.")
    max_cost: float | None = Field(
        default=None, gt=0, description="Limit of what all runs of the job cost, by `price`."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_cost is not None and self.price is None:
            raise JobError("engine.max_cost needs engine.price", "add it, e.g. `price: {clip: 0.1}`")
        if secret := secret_in(self.options):  # job.json has them
            problem = f"engine.options has {secret!r}, and is stored in the output"
            raise JobError(problem, "name the environment variable with the key in `engine.api_key_env`")
        if ours := sorted(_OURS & self.options.keys()):
            problem = f"engine.options has {ours[0]!r}, which framefleet sets itself"
            raise JobError(problem, "leave it out")
        return self

    def deciding(self) -> dict[str, Any]:
        return {**super().deciding(), "options": self.options}

    @property
    def key(self) -> str | None:
        """The key, from the environment. Raises JobError if it is not set."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key or not key.isprintable():
            problem = f"engine.api_key_env: the environment variable {self.api_key_env} is not set"
            raise JobError(problem, "set it, or leave `api_key_env` out")
        keep_secrets({"key": key})
        return key

    def spec(self) -> PipelineSpec:
        with closing(Web(self.urls, self.key)) as web:
            takes = told_words(web, self.urls, self.kind, self.model)
        made: Literal["video", "image"] = "video" if self.kind == "videos" else "image"
        return engine_spec(self.type, made, parameters_for(self.kind, takes), row_rules=ROW_RULES)

    def cost(self, request: Request) -> float:
        if self.price is None:
            return 0.0
        seconds = length_asked(request.arguments) if self.price.second else 0.0
        if seconds is None:
            fix = "set `seconds`, or `num_frames` and `fps`"
            raise RowError("its price is per second, but it does not set its length", fix)
        return self.price.clip + self.price.second * seconds

    @property
    def limit(self) -> float | None:
        return self.max_cost

    @property
    def places(self) -> int:
        return self.parallel * len(self.urls)

    def start(self, store: Store) -> Session:
        return Session(self, store)


class VideosApi(_Servers):
    """Servers that speak `/v1/videos`."""

    kind = "videos"


class ImagesApi(_Servers):
    """Servers that speak `/v1/images/generations` and `/v1/images/edits`."""

    kind = "images"


def told_words(web: Web, urls: Collection[str], kind: str, model: str) -> Collection[str] | None:
    """Return the fields that the first server to answer says it accepts; None if it does not say.

    Raises JobError if it refuses the key, or says that it has other models.
    """
    why = list[str]()
    for url in urls:
        place, models = f"{url}/models", None
        try:
            answer = web.get(place)
            if answer.status == 401:
                raise JobError(f"{place} answered 401: {answer.text()}", "check the key in `api_key_env`")
            models = answer.json() if answer.is_good else None
            why.append(f"{place} answered {answer.status}")
        except Silent as error:
            why.append(error.problem)
        except ValueError:
            why.append(f"{place} did not answer in JSON")
        names = [one["id"] for one in _list(models, "data") if isinstance(one, Mapping) and "id" in one]
        if names and model not in names:
            shown = ", ".join(map(str, names[:5]))
            raise JobError(f"engine.model is {model!r}, but {url} has {shown}", "use one that it has")
        if models is not None:
            return web.form_of(url, kind)[1]
    log.warning("no server says which models it has: %s", why[0])
    return None


def _list(value: Any, key: str) -> list[Any]:
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, list) else []
