"""A row that a server of the videos API renders: created once, waited for, fetched, and checked."""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from framefleet import EndpointError, FramefleetError, JobError, RenderError, Request, RowError, Store
from framefleet.api.engines import EngineClip, EngineRow, Halted, Left, engine_spec
from framefleet.pipeline.engine import engine_of
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.plugins.engines import servers, session
from framefleet.plugins.engines.paid import Paid
from framefleet.plugins.engines.servers import Servers
from framefleet.plugins.engines.session import Session
from framefleet.plugins.engines.settings import ROW_RULES
from framefleet.plugins.engines.web import HttpAnswer, OutOfReach, Web
from framefleet.plugins.engines.words import parameters_for
from tests.videos_server import VideosServer, videos_server

_ARGUMENTS = {"prompt": "a fox", "width": 32, "height": 16, "num_frames": 5, "fps": 8.0}
_SHAPE = (5, 16, 32, 3)
_KEY = "sk-secret-of-the-tests"


@pytest.fixture(scope="module", params=["vllm", "sglang", "gateway"])
def each(request: pytest.FixtureRequest) -> Iterator[VideosServer]:
    with videos_server(request.param, key=_KEY) as server:
        yield server


@pytest.fixture(scope="module")
def vllm() -> Iterator[VideosServer]:
    with videos_server("vllm", key=_KEY) as server:
        yield server


@pytest.fixture(scope="module")
def gateway() -> Iterator[VideosServer]:
    with videos_server("gateway", key=_KEY) as server:
        yield server


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEOS_KEY", _KEY)


class Rows:
    """What a worker does with rows of a session."""

    def __init__(self, folder: Path, *servers: VideosServer, **settings: Any) -> None:
        values = {"type": "videos_api", "model": "synthetic", "urls": [one.url for one in servers]}
        values |= {"poll_s": 0.02, "timeout_s": 30.0, "patience_s": 20.0, "api_key_env": "VIDEOS_KEY"}
        self.engine = engine_of(values | settings)
        self.session: Session = self.engine.start(Store(str(folder)))
        self.kept: dict[str, Mapping[str, Any]] = {}
        self.said: list[str] = []
        self.is_left = threading.Event()
        self.row_id = uuid.uuid4().hex  # as some servers remember whose ids they gave out
        self._counts = [(server, len(server.posts()), len(server.ids())) for server in servers]

    def close(self) -> None:
        self.session.close()

    def num_posts(self) -> int:
        """Return how many POSTs its servers have got since it began."""
        return sum(len(server.posts()) - before for server, before, _ in self._counts)

    def num_ids(self) -> int:
        """Return how many ids its servers have given out since it began."""
        return sum(len(server.ids()) - before for server, _, before in self._counts)

    def render(self, row_id: str = "", seed: int = 1, **arguments: Any) -> EngineClip:
        row_id = row_id or self.row_id
        return self.session.render(
            EngineRow(
                row_id=row_id,
                request=Request(arguments=_ARGUMENTS | arguments, seed=seed),
                kept=self.kept.get(row_id),
                keep=lambda values: self.kept.update({row_id: values}),
                read=lambda uri: Path(uri).read_bytes(),
                wait=self._wait,
                say=self.said.append,
            )
        )

    def _wait(self, seconds: float) -> None:
        if self.is_left.wait(seconds):
            raise Left


@pytest.fixture
def rows(vllm: VideosServer, tmp_path: Path) -> Iterator[Rows]:
    vllm.set_faults()
    with closing(Rows(tmp_path, vllm)) as rows:
        yield rows


def test_each_dialect_makes_the_clip_that_was_asked_for(each: VideosServer, tmp_path: Path) -> None:
    each.set_faults()
    before = len(each.posts())
    with closing(Rows(tmp_path, each)) as rows:
        clip = rows.render(seed=7)
    (post,) = (post for post in each.posts()[before:] if "id" in post)
    assert (clip.frames.shape, clip.fps) == (_SHAPE, 8.0)
    assert clip.sent is not None and clip.sent.format == "mp4"
    assert post["headers"]["Idempotency-Key"].startswith(rows.row_id)
    assert (post["body"]["size"], str(post["body"]["seed"])) == ("32x16", "7")
    assert clip.environment["server_id"] == post["id"]
    assert not any(_KEY in json.dumps(entry) for entry in each.log("elsewhere"))  # which gateways redirect to


@pytest.mark.parametrize(
    "faults",
    [
        {"busy": {"value": True, "first": 2}},
        {"busy": {"value": "0.1", "first": 2}},
        {"loading_s": 0.5},
        {"html": {"first": 2, "at": ["poll"]}},
        {"empty": {"first": 2}},
        {"half": {"first": 1}},
        {"json_content": {"first": 1}},
        {"status": {"value": 503, "first": 9, "at": ["content"]}},
        {"status": {"value": 429, "first": 2, "at": ["poll"]}},
        {"status": {"value": 502, "first": 3, "at": ["poll"]}},
        {"absent": {"first": 3}},  # of several servers at one address, another has it
        {"state": {"value": "warming up", "first": 2}},
        {"octet": True},
        {"slow_s": 0.2},
        {"drop_answer": {"first": 1}, "idempotent": True},
    ],
    ids=json.dumps,
)
def test_a_fault_that_passes_costs_no_clip(vllm: VideosServer, rows: Rows, faults: Any) -> None:
    vllm.set_faults(**faults)
    assert rows.render().frames.shape == _SHAPE
    assert rows.num_ids() == 1


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ({"empty": True}, "sent nothing instead of video"),
        ({"half": True}, "cannot be decoded"),
        ({"json_content": True}, "a file of unknown type"),
        ({"html": {"at": ["content"]}}, "a web page instead of video"),
        ({"frames": 2}, "7 frames instead of 5"),
        ({"size": "64x16"}, "64x16 instead of 32x16"),
        ({"fps": 12}, "12 fps instead of 8 fps"),
    ],
)
def test_what_is_not_the_clip_that_was_asked_for_fails_its_row(
    vllm: VideosServer, rows: Rows, faults: Any, says: str
) -> None:
    vllm.set_faults(**faults)
    with pytest.raises(RenderError, match=says):
        rows.render()


def test_a_clip_that_the_server_says_has_failed_is_created_anew_by_the_next_attempt(
    vllm: VideosServer, rows: Rows
) -> None:
    vllm.set_faults(failed={"value": "out of luck", "first": 1}, idempotent=True)
    with pytest.raises(EndpointError, match="out of luck"):
        rows.render()
    assert rows.render().frames.shape == _SHAPE


def test_a_clip_that_is_refused_once_it_is_made_is_the_rows_own_failure(
    vllm: VideosServer, rows: Rows
) -> None:
    vllm.set_faults(failed="moderation_blocked: not this")
    with pytest.raises(RowError, match=r"not this\nhint: change the row"):
        rows.render()


def test_a_clip_of_which_the_server_says_nothing_is_given_up(vllm: VideosServer, tmp_path: Path) -> None:
    vllm.set_faults(status={"value": 502, "at": ["poll"]})
    rows = Rows(tmp_path, vllm, timeout_s=0.3)
    with closing(rows), pytest.raises(EndpointError, match=r"has not made it in 0\.3 s"):
        rows.render()


@pytest.mark.parametrize("step", ["poll", "content"])
def test_a_key_that_is_refused_later_ends_the_run_and_the_id_is_kept(
    vllm: VideosServer, rows: Rows, step: str
) -> None:
    vllm.set_faults(status={"value": 403, "at": [step], "first": 1})
    with pytest.raises(Halted, match="answered 403"):
        rows.render()
    assert rows.render().frames.shape == _SHAPE
    assert rows.num_posts() == 1


@pytest.mark.parametrize("num_good", [0, 1])
def test_a_link_of_another_host_that_is_refused_says_nothing_about_the_key(
    num_good: int, gateway: VideosServer, tmp_path: Path
) -> None:
    """A signature may have expired: the clip's link is asked for again, and other rows are rendered."""
    with closing(Rows(tmp_path, gateway)) as rows:
        gateway.set_faults(status={"value": 403, "at": ["content"], "first": 2})
        num_links = len(gateway.log("elsewhere"))
        for number in range(num_good):
            assert rows.render(f"{number:032}").frames.shape == _SHAPE
            assert (rows.num_ids(), len(gateway.log("elsewhere")) - num_links) == (1, 3)
        gateway.set_faults(status={"value": 403, "at": ["content"]})
        with pytest.raises(EndpointError if num_good else Halted, match=r"localhost:\d+ answered 403"):
            rows.render()
        assert rows.num_ids() == num_good + 2
        gateway.set_faults()
        if num_good:
            assert rows.render().frames.shape == _SHAPE


@pytest.mark.parametrize(
    "link", ["http://[::1/clip", "http://h:99999/clip", "http://a..b/clip", "file:///clip"]
)
@pytest.mark.parametrize("kind", ["videos", "images"])
def test_a_link_that_is_not_a_web_address_is_named(
    kind: str, link: str, gateway: VideosServer, tmp_path: Path
) -> None:
    gateway.set_faults(link=link, as_url=True)
    says = re.escape(f"{gateway.url.removesuffix('/v1')} names {link!r}, which is not a web address")
    with closing(Rows(tmp_path, gateway, type=f"{kind}_api")) as rows, pytest.raises(Halted, match=says):
        rows.render(**({"num_frames": None, "fps": None} if kind == "images" else {}))


def test_an_image_is_fetched_until_it_is_there(vllm: VideosServer, tmp_path: Path) -> None:
    vllm.set_faults(as_url=True, status={"value": 503, "at": ["content"], "first": 2})
    with closing(Rows(tmp_path, vllm, type="images_api")) as rows:
        image = {name: _ARGUMENTS[name] for name in ("prompt", "width", "height")}
        assert rows.render(**image, num_frames=None, fps=None).frames.shape == (1, 16, 32, 3)
    assert rows.num_posts() == 1


def test_rows_are_not_all_paid_where_no_clip_ever_comes(vllm: VideosServer, rows: Rows) -> None:
    vllm.set_faults(absent=True)
    for _ in range(2):
        with pytest.raises(Halted, match=r"again; it has taken rows, and sent no clip"):
            rows.render()
    assert rows.num_posts() == 2


def test_a_server_whose_clips_all_fail_does_not_get_every_row(vllm: VideosServer, tmp_path: Path) -> None:
    vllm.set_faults()
    with videos_server("vllm", key=_KEY, faults={"failed": True}) as broken:
        with closing(Rows(tmp_path, broken, vllm)) as rows:
            with pytest.raises(EndpointError, match="out of memory"):
                rows.render()
            for number in range(4):
                assert rows.render(f"{number:032}").frames.shape == _SHAPE
        assert len(broken.ids()) == 1


def test_a_server_whose_clips_fail_for_ever_pauses_no_longer_than_a_busy_one() -> None:
    every = Servers(["http://a/v1", "http://b/v1"], 1)
    failing, busy = every
    for _ in range(2000):
        every.failed(failing)
        every.busy(busy, None)
    assert failing.next_at == pytest.approx(busy.next_at, abs=1)


def test_an_id_is_polled_by_the_next_attempt_and_not_created_again(vllm: VideosServer, rows: Rows) -> None:
    vllm.set_faults(slow_s=1.0)
    with ThreadPoolExecutor() as threads:
        under_way = threads.submit(rows.render)
        while not rows.kept:
            assert not under_way.done(), under_way.result()
        rows.is_left.set()
        with pytest.raises(Left):
            under_way.result()
        rows.is_left.clear()
        assert rows.render().frames.shape == _SHAPE
    assert rows.num_posts() == 1


def test_a_server_that_gets_no_more_rows_is_still_asked_about_those_it_has(
    vllm: VideosServer, tmp_path: Path
) -> None:
    vllm.set_faults(slow_s=0.5)
    with closing(Rows(tmp_path, vllm)) as rows, ThreadPoolExecutor() as threads:
        under_way = threads.submit(rows.render)
        while not rows.kept:
            assert not under_way.done(), under_way.result()
        (server,) = rows.session._servers
        rows.session._servers.busy(server, 60.0)
        assert under_way.result(timeout=20).frames.shape == _SHAPE  # long before its own timeout


@pytest.mark.parametrize("fault", ["forget", "expire"])
def test_a_forgotten_id_is_created_once_more_and_that_is_said(
    vllm: VideosServer, rows: Rows, fault: str
) -> None:
    vllm.set_faults(**{fault: {"first": 1}})
    assert rows.render().frames.shape == _SHAPE
    assert rows.num_ids() == 2
    assert any("it is created again" in line for line in rows.said)


def test_rows_of_a_dead_server_go_to_another(vllm: VideosServer, tmp_path: Path) -> None:
    vllm.set_faults()
    with videos_server("vllm", key=_KEY, faults={"never_done": True}) as server:
        with closing(Rows(tmp_path, server, vllm, patience_s=0.5)) as rows, ThreadPoolExecutor() as threads:
            some = [threads.submit(rows.render, uuid.uuid4().hex) for _ in range(2)]
            while not any(kept["url"] == server.url for kept in [*rows.kept.values()] if "url" in kept):
                pass
            server.kill()
            assert [one.result().frames.shape for one in some] == [_SHAPE] * 2
        server.restart()
    assert any("has not answered" in line for line in rows.said)


def test_no_server_that_answers_ends_the_run(vllm: VideosServer, tmp_path: Path) -> None:
    with videos_server("vllm") as server:
        rows = Rows(tmp_path, server, api_key_env=None, patience_s=0.3)
        server.kill()
        with closing(rows), pytest.raises(Halted, match="none of 1 server has answered"):
            rows.render()
        server.set_faults(busy="900")
        server.restart()
        rows = Rows(tmp_path, server, api_key_env=None, patience_s=0.3)
        with closing(rows), pytest.raises(Halted, match="none of 1 server has answered, or accepted a row"):
            rows.render()


def test_faults_of_a_server_count_against_a_row_only_while_it_takes_others_or_last(
    vllm: VideosServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_LOAD_S", 0.1)
    monkeypatch.setattr(session, "_RESTART_S", 3600)
    vllm.set_faults(status={"value": 500, "at": ["create"], "first": 8})
    with closing(Rows(tmp_path, vllm, parallel=2)) as rows, ThreadPoolExecutor() as threads:
        assert rows.render().frames.shape == (5, 16, 32, 3)
        vllm.set_faults(status={"value": 500, "at": ["create"], "prompt": "wolf"})
        failing = threads.submit(rows.render, uuid.uuid4().hex, prompt="a wolf")
        while not failing.done():
            rows.render(uuid.uuid4().hex)
        with pytest.raises(EndpointError, match="answered 500"):
            failing.result()
        monkeypatch.setattr(session, "_RESTART_S", 0)
        with pytest.raises(EndpointError, match="answered 500"):
            rows.render(uuid.uuid4().hex, prompt="a wolf")


def test_a_word_that_is_refused_ends_the_run_before_the_second_row_is_created(
    vllm: VideosServer, rows: Rows
) -> None:
    vllm.set_faults(bill_422="fps")
    with ThreadPoolExecutor() as threads:
        some = [threads.submit(rows.render, uuid.uuid4().hex) for _ in range(4)]
        assert any(isinstance(one.exception(), Halted) for one in some)
    assert rows.num_posts() == 1


@pytest.mark.parametrize("num_good", [0, 1])
@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ({"html": {"at": ["create"]}}, "502 Bad Gateway"),
        ({"long_id": 70_000}, "its id has 70,038 characters, but at most 1,024 are allowed"),
    ],
)
def test_an_answer_without_an_id_ends_the_run_before_a_second_row_is_paid(
    num_good: int, faults: Any, says: str, vllm: VideosServer, rows: Rows
) -> None:
    """A server that has taken rows may say nonsense once, for one row."""
    for number in range(num_good):
        rows.render(f"{number:032}")
    vllm.set_faults(**faults)
    with pytest.raises(EndpointError if num_good else Halted, match=says):
        rows.render()
    assert rows.num_posts() == num_good + 1


def test_a_value_that_is_refused_after_other_rows_fails_its_row_alone(vllm: VideosServer, rows: Rows) -> None:
    vllm.set_faults(bill_422={"value": "fps", "prompt": "owl"})
    rows.render()
    with pytest.raises(RowError, match="does not take fps as '8'"):
        rows.render("1" * 32, prompt="an owl")
    assert rows.render("2" * 32).frames.shape == _SHAPE


def test_a_wrong_key_and_a_redirect_end_the_run(
    vllm: VideosServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vllm.set_faults(redirect_create=True)
    with closing(Rows(tmp_path, vllm)) as rows, pytest.raises(Halted, match="answered 302"):
        rows.render()
    vllm.set_faults()
    monkeypatch.setenv("VIDEOS_KEY", "sk-another")
    with closing(Rows(tmp_path, vllm)) as rows, pytest.raises(Halted, match="answered 401"):
        rows.render()


@pytest.mark.parametrize("url, is_read", [("http://127.0.0.2:1/v1", True), ("http://8.8.8.8/v1", False)])
def test_a_server_on_the_internet_leads_into_no_private_network(
    url: str, is_read: bool, vllm: VideosServer
) -> None:
    with closing(Web([url], None)) as web:
        if is_read:
            assert web.get(f"{vllm.url}/models", is_file=True).status
        else:
            with pytest.raises(OutOfReach, match="not a public address"):
                web.get(f"{vllm.url}/models", is_file=True)


def test_the_key_is_in_no_message_and_no_clip(vllm: VideosServer, tmp_path: Path) -> None:
    for faults in ({"failed": "no"}, {"bill_422": "fps"}, {}):
        vllm.set_faults(echo_key=True, **faults)
        with closing(Rows(tmp_path, vllm)) as rows:
            try:
                rows.render()
            except (FramefleetError, Halted) as error:
                assert _KEY not in str(error)
            assert _KEY not in json.dumps([rows.said, dict(rows.kept)])
    cut = HttpAnswer(status=500, headers={}, content=b"x" * 290 + _KEY.encode())
    assert "sk-" not in cut.text()


def test_no_clip_is_created_that_would_cost_more_than_is_allowed(vllm: VideosServer, tmp_path: Path) -> None:
    vllm.set_faults()
    settings = {"price": {"clip": 0.5, "second": 0.8}, "max_cost": 2.1, "parallel": 4}
    before = len(vllm.ids())
    for _ in range(2):  # runs of one output
        with closing(Rows(tmp_path, vllm, **settings)) as rows, ThreadPoolExecutor() as threads:
            some = [threads.submit(rows.render, uuid.uuid4().hex) for _ in range(4)]
            errors = [one.exception() for one in some]
            assert all(error is None or "max_cost is reached" in str(error) for error in errors)
    assert len(vllm.ids()) == before + 2  # each costs 0.5 and 5/8 s of 0.8


def unasked(seconds: float) -> None:
    raise AssertionError("nothing is under way")


def test_a_request_waits_for_one_that_may_turn_out_to_cost_nothing(tmp_path: Path) -> None:
    paid = Paid(Store(str(tmp_path)), 1.5)
    with ExitStack() as refused:
        refused.enter_context(paid.paying(1.0, unasked))
        with paid.paying(1.0, lambda seconds: refused.close()) as note:
            note()
    with pytest.raises(Halted, match=r"paid 1\.00 of 1\.50"), paid.paying(1.0, unasked):
        pass


def test_a_clip_that_is_paid_and_not_fetched_yet_counts_once(tmp_path: Path) -> None:
    paid = Paid(Store(str(tmp_path)), 2.0)
    with paid.paying(1.0, unasked) as note:
        note()
        with paid.paying(1.0, unasked):
            assert paid.cost == 1.0
        with paid.paying(1.0, unasked) as note_second:
            note_second()
        with pytest.raises(Halted, match=r"paid 2\.00 of 2\.00"), paid.paying(1.0, unasked):
            pass


@pytest.mark.parametrize("content", [b"", b"[]", b'{"cost": null}', b'{"cost": "much"}', b"\xff"])
def test_nothing_is_paid_while_it_is_not_known_what_was(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "paid-1.json").write_bytes(content)
    with (
        pytest.raises(Halted, match=r"paid-1\.json is damaged"),
        Paid(Store(str(tmp_path)), 2.0).paying(1.0, unasked),
    ):
        pass


def test_an_image_goes_along_and_what_cannot_be_asked_for_fails_its_row(
    each: VideosServer, tmp_path: Path
) -> None:
    from PIL import Image

    each.set_faults()
    Image.new("RGB", (32, 16), (200, 30, 30)).save(tmp_path / "a.png")
    with closing(Rows(tmp_path / "out", each)) as rows:
        plain = rows.render(seed=3)
        started = rows.render("1" * 32, seed=3, image={"uri": str(tmp_path / "a.png"), "sha256": "0"})
        with pytest.raises(RowError, match="height or width is given alone"):
            rows.render("2" * 32, height=None)
    assert not np.array_equal(plain.frames, started.frames)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"urls": []}, "engine.urls"),
        ({"urls": ["http://user:secret@host/v1"]}, "engine.urls.0"),
        ({"max_cost": 3.0}, "engine.max_cost needs engine.price"),
        ({"options": {"seed": 3}}, "engine.options has 'seed'"),
        ({"type": "videos"}, "did you mean 'videos_api'"),
        ({"type": ["videos_api"]}, "engine.type is"),
        ({3: "videos_api"}, "unknown key `engine.3`"),
        ({"type": "noise", "level": 0.5}, "engine.type is 'noise', but there is no such engine"),
        ({"options": {"extra": {"API-Key": "sk"}}}, "engine.options has 'API-Key', and is stored"),
        ({"api_key_env": "NOT_SET"}, "is not set"),
    ],
)
def test_what_a_job_says_wrongly_is_told_by_its_place(values: Mapping[Any, Any], says: str) -> None:
    usual = {"type": "videos_api", "model": "m", "urls": ["http://127.0.0.1:1/v1"]}
    with pytest.raises(FramefleetError, match=says):
        _ = engine_of({**usual, **values}).key  # type: ignore[attr-defined]


def test_why_no_server_says_what_it_has_is_told(vllm: VideosServer, caplog: pytest.LogCaptureFixture) -> None:
    vllm.set_faults()
    with pytest.raises(JobError, match=r"/models answered 401(.|\n)*check the key in `api_key_env`"):
        spec_of(vllm.url, api_key_env=None)
    for url, why in ((vllm.url.removesuffix("/v1"), "answered 404"), ("http://127.0.0.1:1/v1", "connect")):
        spec_of(url)
        assert why in caplog.messages[-1]
    with pytest.raises(JobError, match="has synthetic"):
        spec_of(vllm.url, model="other")
    names = spec_of(vllm.url).parameters
    assert {"prompt", "height", "width", "num_frames"} <= names.keys()
    assert "strength" not in names, "which the server does not name"


def spec_of(url: str, **values: Any) -> PipelineSpec:
    usual = {"type": "videos_api", "model": "synthetic", "urls": [url], "api_key_env": "VIDEOS_KEY"}
    return engine_of(usual | values).spec()


def test_an_image_goes_where_the_server_takes_one() -> None:
    assert "image" in parameters_for("images", {"prompt", "size"})  # at another path, for edits
    assert "image" in parameters_for("videos", {"prompt", "input_reference"})
    assert "image" not in parameters_for("videos", {"prompt", "image"})


def test_a_page_that_refers_to_itself_says_nothing() -> None:
    class Looking(Web):
        def look(self, url: str) -> Any:
            schema = {"$ref": "#/components/schemas/A"}
            body = {"requestBody": {"content": {"application/json": {"schema": schema}}}}
            return {"paths": {"/v1/videos": {"post": body}}, "components": {"schemas": {"A": schema}}}

    with closing(Looking(["http://127.0.0.1:1/v1"], None)) as web:
        assert web.form_of("http://127.0.0.1:1/v1", "videos") == (None, None)


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ({"seconds": "2.5"}, None),
        ({"seconds": 5, "fps": 16, "num_frames": 81}, None),
        ({"seconds": 10, "fps": 16, "num_frames": 81}, "at 16 fps that is 160 frames, and num_frames is 81"),
        ({"seconds": -1}, "it must be above 0"),
        ({"height": 480}, "height or width is given alone"),
    ],
)
def test_what_no_clip_can_be_is_refused_before_it_is_paid(cells: dict[str, Any], says: str | None) -> None:
    spec = engine_spec("videos_api", "video", parameters_for("videos", None), row_rules=ROW_RULES)
    table = pa.RecordBatch.from_pylist([{"prompt": "a fox", **cells}])
    (row,) = plan_rows(table.schema, spec).rows(0, table)
    if isinstance(row, InvalidRow):
        assert says and says in str(row.messages())
    else:
        assert says is None and row.request.arguments["seconds"] == float(cells["seconds"])
