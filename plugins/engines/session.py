"""Create each row's clip at a server, wait for it and fetch it, so that it is paid for only once.

The clip's id at the server is stored in the output before the wait. A later attempt, also in another run,
then waits for this clip instead of creating another.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from framefleet.api.engines import EngineClip, EngineRow, EngineSession, Halted, file_kind, retry_after_s
from framefleet.api.errors import EndpointError, RenderError, RowError, count_text, shown
from framefleet.api.outputs import RECORDS, Store
from framefleet.api.texts import public_text
from framefleet.pipeline.metrics import ENGINE_MONEY
from framefleet.plugins.engines.paid import Paid
from framefleet.plugins.engines.received import clip_received
from framefleet.plugins.engines.servers import Server, Servers
from framefleet.plugins.engines.web import BadLink, HttpAnswer, OutOfReach, Silent, Web, linked
from framefleet.plugins.engines.words import fields_of, file_word

if TYPE_CHECKING:
    from framefleet.plugins.engines.settings import _Servers

_DONE = ("completed", "complete", "succeeded")
_FAILED = ("failed", "cancelled", "canceled", "expired", "error")
_UNDER_WAY = ("queued", "in_progress", "processing", "pending", "running", "starting", "created")
_REFUSED = (400, 413, 415, 422)
_OF_LINK = (400, 401, 403, 404, 410)  # what another host answers, e.g. once a signature has expired
_OF_CONTENT = ("moderation", "content_policy", "safety")  # in codes of clips that no server makes
_ABSENT = (502, 503, 504)  # a proxy's words, or those of a server that loads: not about the clip
_TURN_S = 0.05  # between two looks at whether the first row was taken
_LOOK_S = 1.0  # between two looks at a silent server
_RESTART_S = 60.0  # of a server that answers all rows with faults: meanwhile, these are not about the row
_MAX_ID = 1024  # characters: it is stored for the row, and part of addresses
_TRIES = 3  # to fetch a file that is none, and to create at servers that answer with faults
_ABSENCES = 8  # answers that it has no such clip, in a row: of several servers at one address, others have it
_LATER = "run the same command again when it answers"


class _Forgotten(Exception):
    """The server no longer knows the id. The text says how we know."""


@dataclass(slots=True)
class _Made:
    """What was created for a row. number: of its ids before. kept: what the output has of it."""

    server: Server
    id: str
    number: int = 0
    num_absent: int = 0  # answers in a row that the server has no such clip
    file: str | None = None  # once it is done: where its content is, if the server says so
    content: bytes | None = field(default=None, repr=False)  # that came at once

    @property
    def kept(self) -> dict[str, str | int]:
        return {"url": self.server.url, "id": self.id, "number": self.number}


@dataclass(slots=True)
class _Faults:
    """Of servers that were to create a row's clip. num: those that count against the row."""

    num_taken: int  # rows that servers had taken at the last one
    num: int = 0
    since: float = field(default_factory=time.monotonic)


class Session(EngineSession):
    def __init__(self, engine: _Servers, store: Store) -> None:
        self._engine = engine
        self._web = Web(engine.urls, engine.key)
        self._servers = Servers(engine.urls, engine.parallel)
        self._paid = Paid(store, engine.max_cost)
        # Part of a row's idempotency key, since the same row in another output is another clip.
        self._output = f"-{sha256(store.url_of('').encode()).hexdigest()[:8]}"
        self._forms: dict[str, tuple[bool, Any]] = {}  # by URL: whether it takes JSON, and which words
        self._num_ended: dict[str, int] = {}  # ids of a row that ended without a clip
        self._faults: dict[str, _Faults] = {}  # by row, until it is taken or fails
        self._num_taken = 0  # rows, by all servers
        self._unknown = ""  # the last state that a server named, and that we do not know
        self._first = threading.Lock()  # held to create, until a server has taken a row
        self._has_taken = self._has_sent = bool(store.list(RECORDS))  # a server: a row, a clip; in any run
        self._halt: Halted | None = None  # why no more rows are created
        self._is_over = threading.Event()
        threading.Thread(target=self._look_for_silent, name="silent servers", daemon=True).start()

    def room(self) -> int:
        return self._servers.room()

    def figures(self) -> Mapping[str, float]:
        return {**self._servers.figures(), ENGINE_MONEY.key(): self._paid.cost}

    def close(self) -> None:
        self._is_over.set()
        self._web.close()

    def render(self, row: EngineRow) -> EngineClip:
        made, num_forgotten = self._kept(row), 0
        while True:
            with self._servers.place(row.wait, self._check_servers, made.server if made else None) as server:
                try:
                    if made is None:
                        made = self._create(row, server)
                        if made is None:
                            continue  # it is busy or silent, so try another place
                    if made.id:
                        self._wait_for(row, made)
                    clip = self._clip(row, made)
                except _Forgotten as error:
                    num_forgotten += 1
                    if num_forgotten > 1:
                        problem, fix = f"{server.name}: {error}, again", "look at the server"
                        if not self._has_sent:  # each row would be paid twice, and lead to no clip
                            problem += "; it has taken rows, and sent no clip"
                            raise self._halted(Halted(problem, fix, "job")) from None
                        raise EndpointError(problem, fix) from None
                    row.say(f"row {row.row_id}: {server.name}: {error}; it is created again")
                    if made:
                        self._ended(row, made)
                    made = None
                    continue
                self._servers.done(server)
                self._has_sent = True
                self._num_ended.pop(row.row_id, None)
                self._faults.pop(row.row_id, None)
                return clip

    def _kept(self, row: EngineRow) -> _Made | None:
        kept = row.kept or {}
        if not (isinstance(kept.get("id"), str) and isinstance(kept.get("url"), str)):
            return None
        server = self._servers.named(kept["url"])
        if server is None:
            row.say(f"row {row.row_id}: it was created at {kept['url']}, which is no longer in the job")
            return None
        return _Made(server, kept["id"], self._number(row))

    def _number(self, row: EngineRow) -> int:
        """Return how many ids of a row have ended without a clip, in earlier runs too."""
        kept = (row.kept or {}).get("number")
        return max(kept if isinstance(kept, int) else 0, self._num_ended.get(row.row_id, 0))

    def _ended(self, row: EngineRow, made: _Made) -> None:
        """What was created has ended without a clip: it is not waited for again."""
        self._num_ended[row.row_id] = number = made.number + 1
        row.keep({"ended": made.kept, "number": number})

    def _failed(self, row: EngineRow, made: _Made) -> None:
        """The same, and the server may be why."""
        self._ended(row, made)
        self._servers.failed(made.server)

    def _create(self, row: EngineRow, server: Server) -> _Made | None:
        """Have a server start a row; None if it is busy or silent."""
        with ExitStack() as stack:
            while not self._has_taken:
                row.wait(0)
                if self._first.acquire(timeout=_TURN_S):
                    stack.callback(self._first.release)
                    break
            if self._halt:
                raise self._halt
            try:
                return self._created(row, server)
            except Halted as error:
                raise self._halted(error) from None

    def _halted(self, error: Halted) -> Halted:
        """No further row is created."""
        self._halt = error
        return error

    def _created(self, row: EngineRow, server: Server) -> _Made | None:
        engine = self._engine
        is_json, takes = self._form(server)
        fields = fields_of(
            row.request, model=engine.model, kind=engine.kind, takes=takes, options=engine.options
        )
        files = self._files(row)
        path, timeout_s = "videos", 120.0
        if engine.kind == "images":
            path, timeout_s = "images/edits" if files else "images/generations", engine.timeout_s
            fields |= {"response_format": "b64_json", "n": 1}
            is_json = not files
        number = self._number(row)
        with self._paid.paying(engine.cost(row.request), row.wait) as note_cost:
            try:
                answer = self._web.post(
                    f"{server.url}/{path}",
                    fields,
                    files=files,
                    is_json=is_json,
                    idempotency_key=f"{row.row_id}{self._output}" + f"-{number}" * bool(number),
                    timeout_s=timeout_s,
                )
            except OutOfReach as error:
                self._servers.silent(server, error.problem)
                return None
            except Silent as error:
                note_cost()
                row.say(f"row {row.row_id}: {error.problem}; it may have been created there")
                self._servers.silent(server, error.problem)
                self._count_fault(row, error)
                return None
            if not answer.is_good:
                self._not_created(row, server, answer, is_json=is_json, fields=fields)
                return None
            self._servers.taken(server)
            self._num_taken += 1
            try:
                made = self._made(answer, server, number)
                if made.id:
                    row.keep(made.kept)
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                problem = f"{server.name} answered {answer.text()} ({error})"
                if not self._has_taken:  # each row would be paid, and lead to no clip
                    raise Halted(problem, "check that the servers of `urls` speak this API", "job") from None
                self._servers.failed(server)
                raise EndpointError(problem, _LATER) from None
            finally:
                note_cost()
        self._has_taken = True
        return made

    def _made(self, answer: HttpAnswer, server: Server, number: int) -> _Made:
        said = answer.json()
        if self._engine.kind == "images":
            one = said["data"][0]
            if not one.get("b64_json"):
                return _Made(server, "", number, file=str(one["url"]))
            content = base64.b64decode(one["b64_json"], validate=True)
            return _Made(server, "", number, content=content)
        if not isinstance(said["id"], str) or not said["id"] or "/" in said["id"]:
            raise ValueError("it has no id")
        if len(said["id"]) > _MAX_ID:
            size = count_text(len(said["id"]), "character")
            raise ValueError(f"its id has {size}, but at most {_MAX_ID:,} are allowed")
        return _Made(server, said["id"], number)

    def _not_created(
        self, row: EngineRow, server: Server, answer: HttpAnswer, *, is_json: bool, fields: Mapping[str, Any]
    ) -> None:
        """Pause the server, or raise if it refuses the row or the job."""
        status, said = answer.status, f"{server.name} answered {answer.status}: {answer.text()}"
        if status in (401, 403, 404, 405) or 300 <= status < 400:
            raise Halted(said, "check `urls`, `model` and the key in `api_key_env`", "job")
        if status == 402:
            raise Halted(said, "pay there, and run the same command again", "spent")
        if status == 415 and self._engine.body == "auto" and server.url not in self._forms:
            self._forms[server.url] = not is_json, None
            return
        if status in _REFUSED:
            others = fields.keys() - {"prompt", "negative_prompt", "model", "seed"}
            if named := next((name for name in sorted(others) if f'"{name}"' in answer.text()), None):
                said = f"{said}; it does not take {named} as {str(fields[named])[:50]!r}"
                if not self._has_taken:  # or else it is this row's value
                    raise Halted(said, "leave it out, or give another value", "job")
            raise RowError(said, "change the row")
        if status in (429, *_ABSENT):  # it is loading, or busy
            self._servers.answered(server)
            self._servers.busy(server, retry_after_s(answer.headers))
            return
        row.say(f"row {row.row_id}: {said}")
        self._servers.answered(server)
        self._servers.busy(server, retry_after_s(answer.headers), why=said)
        faults = self._faults.setdefault(row.row_id, _Faults(self._num_taken))
        are_others_taken, faults.num_taken = self._num_taken > faults.num_taken, self._num_taken
        if are_others_taken or time.monotonic() - faults.since > _RESTART_S:
            self._count_fault(row, EndpointError(said, "check the server"))

    def _count_fault(self, row: EngineRow, error: EndpointError) -> None:
        """Count that a server could not take a row; raise the error if that happens to the row again."""
        faults = self._faults.setdefault(row.row_id, _Faults(self._num_taken))
        faults.num += 1
        if faults.num >= _TRIES:
            del self._faults[row.row_id]
            raise error

    def _form(self, server: Server) -> tuple[bool, Any]:
        """Return whether a server accepts JSON, and which fields, if it says so."""
        if server.url not in self._forms:
            is_json, takes = self._web.form_of(server.url, self._engine.kind)
            if is_json is None and takes is None:
                return self._engine.body == "json", None
            self._forms[server.url] = bool(is_json), takes
        is_json, takes = self._forms[server.url]
        return (is_json if self._engine.body == "auto" else self._engine.body == "json"), takes

    def _files(self, row: EngineRow) -> dict[str, tuple[bytes, str]]:
        image = row.request.arguments.get("image")
        if not image:
            return {}
        content = row.read(image["uri"])
        kind = file_kind(content)
        if kind is None or kind.kind != "image":
            raise RowError(f"image is {kind or 'not an image'}", "use a PNG or JPEG")
        return {file_word(self._engine.kind): (content, f"image/{kind.name}")}

    def _wait_for(self, row: EngineRow, made: _Made) -> None:
        """Wait until what was created is done. Raises _Forgotten, Halted."""
        until = time.monotonic() + self._engine.timeout_s
        while True:
            said = self._state(made)
            state = str(said.get("status", "")).lower()
            if state in _DONE:
                break
            if state in _FAILED:
                reason = said.get("error") or state
                code, message = "", reason
                if isinstance(reason, Mapping):
                    code, message = str(reason.get("code") or ""), reason.get("message", reason)
                problem = public_text(f"{made.server.name}: {message}")[:300]  # it may repeat the key
                if any(word in code.lower() for word in _OF_CONTENT):
                    self._ended(row, made)
                    raise RowError(problem, "change the row")
                self._failed(row, made)
                raise EndpointError(problem, "look at the server's log, or run the same command again")
            if said and state not in (*_UNDER_WAY, self._unknown):
                self._unknown = state
                row.say(f"row {row.row_id}: {made.server.name} says {shown(state)}; waiting")
            if (now := time.monotonic()) > until:
                self._failed(row, made)
                problem = f"{made.server.name} has not made it in {self._engine.timeout_s:g} s"
                raise EndpointError(problem, "raise engine.timeout_s, or look at the server")
            row.wait(min(max(self._engine.poll_s, made.server.poll_at - now), until - now))
        made.file = str(said["url"]) if isinstance(said.get("url"), str) else None

    def _state(self, made: _Made) -> Mapping[str, Any]:
        """Return what the server says of an id; nothing where it does not say it now."""
        server, said = made.server, None
        with suppress(Silent, ValueError):
            answer = self._web.get(f"{server.url}/videos/{made.id}")
            if answer.status in (404, 410):
                self._servers.answered(server)
                self._absent(made)
                return {}
            self._check_key(server, answer)
            if answer.status == 429:
                self._servers.answered(server)
                self._servers.crowded(server, retry_after_s(answer.headers))
                return {}
            if answer.status not in _ABSENT:
                said = answer.json()  # whatever else it is: that of a clip that failed may be 500
        if isinstance(said, Mapping) and "status" in said:
            self._servers.answered(server)
            made.num_absent = 0
            return said
        self._silent(server)
        return {}

    def _absent(self, made: _Made) -> None:
        """A server says that it has no such clip. Raises _Forgotten once it has said so often enough."""
        made.num_absent += 1
        if made.num_absent >= _ABSENCES:
            raise _Forgotten(f"it has forgotten {made.id or made.file}")

    def _check_key(self, server: Server, answer: HttpAnswer) -> None:
        """Raise Halted if a server refuses the key: the clip is paid, and its id is kept."""
        if answer.status in (401, 403):
            problem = f"{server.name} answered {answer.status}: {answer.text()}"
            raise self._halted(Halted(problem, "check the key that `api_key_env` names", "job"))

    def _silent(self, server: Server) -> None:
        """A server does not say or send what it has made: raise _Forgotten where that is so for long."""
        self._servers.silent(server)
        silent_s = time.monotonic() - (server.down_since or time.monotonic())
        if silent_s > self._engine.patience_s:
            self._check_servers()
            raise _Forgotten(f"it has not answered for {silent_s:.0f} s")

    def _clip(self, row: EngineRow, made: _Made) -> EngineClip:
        """Return what a server has made. A file that is none is fetched again: it may be still under way.

        A link that does not work is asked for again: it may have expired.
        """
        since, num_bad, num_refused = time.monotonic(), 0, 0
        while True:
            try:
                content = self._fetched(made) if made.content is None else made.content
                if self._web.has_key(content):
                    raise RenderError("the server sent a file that contains the key", "check the server")
                row.make_room()
                clip = clip_received(content, row.request.arguments, self._engine.kind)
                where = {"server": made.server.name, **({"server_id": made.id} if made.id else {})}
                return replace(clip, environment=where)
            except BadLink as error:
                num_refused += 1
                if num_refused == _ABSENCES:
                    raise _Forgotten(f"its clip cannot be fetched: {error.problem}") from None
                row.wait(self._engine.poll_s)
                if made.id:
                    self._wait_for(row, made)
                continue
            except Silent as error:  # the clip is paid, and waits there
                self._silent(made.server)
                if time.monotonic() - since > self._engine.patience_s:
                    raise _Forgotten(f"its clip cannot be fetched: {error.problem}") from None
            except RenderError:
                num_bad += 1
                if num_bad == _TRIES or made.content is not None:
                    self._failed(row, made)
                    raise
            row.wait(self._engine.poll_s)

    def _fetched(self, made: _Made) -> bytes:
        """Return the file of an id. Raises _Forgotten, Halted, Silent."""
        url = f"{made.server.url}/videos/{made.id}/content"
        places = [url] * bool(made.id) + ([made.file] if made.file else [])
        for place in places:
            answer = self._web.get(linked(url, place), timeout_s=self._engine.timeout_s, is_file=True)
            if answer.status not in (401, 403, 404, 405):
                break
        if answer.status in _OF_LINK and not self._web.is_own(answer.url):
            host = urlsplit(answer.url).netloc.rpartition("@")[2]
            raise BadLink(f"{host} answered {answer.status}: {answer.text()}", _LATER)
        self._check_key(made.server, answer)
        if answer.status in (404, 410):
            self._absent(made)
        if not answer.is_good:
            raise Silent(f"{made.server.name} answered {answer.status}: {answer.text()}", _LATER)
        return answer.content

    def _check_servers(self) -> None:
        """Raise Halted if no server has been useful for a long time."""
        if (useless_s := self._servers.useless_s()) > self._engine.patience_s:
            num = count_text(len([*self._servers]), "server")
            why = next((f": {server.why}" for server in self._servers if server.why), "")
            problem = f"none of {num} has answered, or accepted a row, for {useless_s:.0f} s{why}"
            raise Halted(problem, _LATER, "service")

    def _look_for_silent(self) -> None:
        """Check in the background whether silent servers answer again."""
        while not self._is_over.wait(_LOOK_S):
            for server in self._servers:
                if server.down_since is None:
                    continue
                try:
                    if self._web.get(f"{server.url}/models", timeout_s=5.0).status < 500:
                        self._servers.answered(server)
                except (Silent, CancelledError, RuntimeError):  # the session has ended
                    continue
