"""What an error of a store means: whether to ask again, for how long, and whom to tell; by provider."""

from __future__ import annotations

import errno
import os
import pickle
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)
from fsspec.registry import known_implementations
from s3fs.errors import translate_boto_error

from framefleet import Store, UserError
from framefleet.cluster.fleet.losses import CUT_OFF_S, RECOVERY_S, Storing
from framefleet.pipeline.errors import StoreError, StoreTrouble, TableError
from framefleet.pipeline.outputs.stores import object_store, retries
from framefleet.pipeline.outputs.stores.object_store import ObjectStore
from framefleet.pipeline.outputs.stores.retries import DamagedUpload, Patience, Soon, in_a_line, trouble_of
from framefleet.pipeline.rows.tables.table import open_table
from tests.failing_store import failing


def said(code: str, status: int) -> Exception:
    """Return what s3fs makes of a server's answer."""
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(ClientError(response, "PutObject"))


class HttpError(Exception):
    """As gcsfs has it."""

    def __init__(self, code: int) -> None:
        self.code = code


class GoogleAuthError(Exception):
    """As google.auth has it."""


class TransportError(GoogleAuthError):
    """The same, where tokens come from cannot be reached."""


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (said("SlowDown", 503), "unreachable"),
        (said("InternalError", 500), "unreachable"),
        (said("504", 504), "unreachable"),
        (said("RequestTimeout", 400), "unreachable"),
        (said("BadDigest", 400), "unreachable"),
        (said("NoSuchUpload", 404), "unreachable"),
        (said("ConditionalRequestConflict", 409), "unreachable"),
        (said("AccessDenied", 403), "refused"),
        (said("ExpiredToken", 400), "refused"),
        (said("InvalidAccessKeyId", 403), "refused"),
        (said("NoSuchBucket", 404), "missing"),
        (said("NoSuchKey", 404), "other"),
        (said("PreconditionFailed", 412), "other"),
        (said("XMinioStorageFull", 507), "full"),
        (EndpointConnectionError(endpoint_url="http://x"), "unreachable"),
        (ReadTimeoutError(endpoint_url="http://x"), "unreachable"),
        (NoCredentialsError(), "refused"),
        (ParamValidationError(report="x"), "invalid"),
        (ValueError("Invalid endpoint: foo"), "invalid"),
        (HttpError(503), "unreachable"),
        (HttpError(403), "refused"),
        (OSError("Forbidden: b/o\nno storage.objects.create access"), "refused"),  # gcsfs's of a 403
        (TransportError(), "unreachable"),
        (ConnectionResetError(), "unreachable"),
        (TimeoutError(), "unreachable"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "full"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), "refused"),
        (PermissionError(errno.EACCES, "x"), "refused"),
        (FileNotFoundError(), "other"),
        (KeyError("x"), "other"),
    ],
)
def test_an_error_is_told_by_what_it_says(error: Exception, trouble: StoreTrouble) -> None:
    assert trouble_of(error) == trouble


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (said("SlowDown", 503), 3),
        (said("XMinioStorageFull", 507), 3),
        (said("InvalidAccessKeyId", 403), 2),
        (said("NoSuchBucket", 404), 2),
        (ValueError("Invalid endpoint: foo"), 2),
    ],
)
def test_only_what_may_pass_asks_for_the_same_command_again(error: Exception, exit_code: int) -> None:
    with failing(repeat(error)), pytest.raises(StoreError) as caught:
        Store("failing://run", outage_s=0).list("records")
    assert (caught.value.exit_code, pickle.loads(pickle.dumps(caught.value)).exit_code) == (exit_code,) * 2


def test_who_has_no_credentials_reads_how_to_give_them() -> None:
    with failing(repeat(NoCredentialsError())):
        with pytest.raises(StoreError, match="Unable to locate credentials") as of_store:
            Store("failing://run", outage_s=0).list("records")
        with pytest.raises(TableError, match="Unable to locate credentials") as of_table:
            open_table("failing://bucket/t.csv")
    assert "AWS_ACCESS_KEY_ID" in of_store.value.fix and of_table.value.fix == of_store.value.fix


def test_what_azure_says_is_told_on_one_line() -> None:
    said = "The specified container does not exist.\nRequestId:8c7b\nContent: <?xml ...?>\n<Error/>"
    assert in_a_line(Exception(said)) == "The specified container does not exist."
    assert in_a_line(OSError("Forbidden: b/o\nno access")) == "Forbidden: b/o no access"


NOW = 1000.0


@pytest.mark.parametrize(
    ("stored_by", "ago_s", "silent_s", "is_cut_off"),
    [
        ("worker-1", CUT_OFF_S + 1, CUT_OFF_S, False),  # the store is silent to all
        ("worker-1", 1, CUT_OFF_S, True),
        ("worker-0", 1, CUT_OFF_S, False),  # what it stored itself says nothing of others
    ],
)
def test_a_worker_whose_store_is_silent_while_others_store_is_cut_off_after_a_minute(
    stored_by: str, ago_s: float, silent_s: float, is_cut_off: bool
) -> None:
    storing = Storing()
    storing.stored(stored_by, now=NOW - ago_s)
    assert not storing.is_cut_off("worker-0", silent_s=silent_s, now=NOW)  # all may just have got it back
    storing.stored(stored_by, now=NOW - ago_s + RECOVERY_S)
    later = {"silent_s": silent_s + RECOVERY_S, "now": NOW + RECOVERY_S}
    assert storing.is_cut_off("worker-0", **later) == is_cut_off


def test_after_an_outage_for_all_no_worker_is_ended(seed: int = 7) -> None:
    rng, storing, outage_s = random.Random(seed), Storing(), 300.0
    back = {f"worker-{number}": outage_s + rng.uniform(0, 65) for number in range(100)}
    for second in range(int(outage_s) + 300):
        for worker, at in back.items():
            if second >= at:
                storing.stored(worker, now=float(second))
            else:
                assert not storing.is_cut_off(worker, silent_s=float(second), now=float(second))


LIMIT_S = 0.5


class Slow:
    """A request that waits for longer than the limit, while the store answers others or does not."""

    def __init__(self, patience: Patience, *, num_failures: int, others_are_answered: bool) -> None:
        self.patience = patience
        self.num_failures, self.others_are_answered = num_failures, others_are_answered
        self.num_asked = 0

    def __call__(self) -> str:
        self.num_asked += 1
        if self.num_asked > self.num_failures:
            return "an answer"
        if self.num_asked > 1:
            time.sleep(LIMIT_S)
            if self.others_are_answered:
                self.patience.ride_out(lambda: "another answer")
        raise TimeoutError("no answer")


def patience() -> Patience:
    patience = Patience("s3://bucket/run", LIMIT_S)
    patience.ride_out(lambda: "it has answered before")
    return patience


def test_a_request_that_waited_as_the_store_came_back_is_made_once_more() -> None:
    there = patience()
    request = Slow(there, num_failures=2, others_are_answered=True)
    assert there.ride_out(request) == "an answer"
    assert request.num_asked == 3


@pytest.mark.parametrize(("others_are_answered", "num_asked"), [(True, 3), (False, 2)])
def test_one_that_is_never_answered_ends(others_are_answered: bool, num_asked: int) -> None:
    there = patience()
    request = Slow(there, num_failures=9, others_are_answered=others_are_answered)
    with pytest.raises(TimeoutError):
        there.ride_out(request)
    assert request.num_asked == num_asked


def test_a_store_that_hangs_is_noticed_before_its_library_gives_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retries, "TOLD_AFTER_S", 0.05)
    monkeypatch.setattr(retries, "_LOOK_S", 0.01)
    there, may_answer = Patience("s3://bucket/run", 300), threading.Event()
    with ThreadPoolExecutor() as threads:
        large = threads.submit(there.ride_out, may_answer.wait)
        time.sleep(0.2)
        assert there.silent_s == 0.0
        small = threads.submit(there.ride_out, may_answer.wait, is_small=True)
        while not caplog.messages:
            assert not small.done()
            time.sleep(0.01)
        assert there.silent_s > 0.05 and "has not answered for 0 s (no answer to a small" in caplog.text
        may_answer.set()
        assert large.result() and small.result()
    assert there.silent_s == 0.0 and "answers again, after 0 s" in caplog.text


def test_an_answer_that_comes_in_time_is_had_and_so_is_an_error() -> None:
    asked = Soon("test")
    assert asked.ask(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        asked.ask(lambda: 1 // 0)


def test_while_one_answer_is_overdue_nothing_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    may_answer, asked = threading.Event(), Soon("test")
    with monkeypatch.context() as patch:
        patch.setattr(retries, "WITHIN_S", 0.01)
        assert asked.ask(may_answer.wait) is None
    called: list[int] = []
    assert asked.ask(lambda: called.append(1)) is None
    assert called == []
    may_answer.set()
    while asked.ask(lambda: 7) is None:
        """Its thread has not ended that answer yet."""


def test_a_store_whose_package_is_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme, extra in {
        "gs": "gcs",
        "gcs": "gcs",
        "az": "azure",
        "abfs": "azure",
        "abfss": "azure",
    }.items():
        fix = known_implementations[scheme]["err"]
        monkeypatch.setitem(known_implementations, f"{scheme}x", {"class": "no_such.Files", "err": fix})
        for read, place in ((Store, "run"), (open_table, "t.csv")):
            with pytest.raises(UserError, match="its package is not installed") as refusal:
                read(f"{scheme}x://bucket/{place}")
            assert refusal.value.fix == f"pip install 'framefleet[{extra}]'"


class ChecksumError(Exception):
    """As gcsfs has it."""


class Files:
    """As a file system of gcsfs: what is put arrives damaged, as often as it says."""

    num_damaged = 1

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def pipe_file(self, place: str, content: bytes, mode: str = "overwrite") -> None:
        if mode == "create" and place in self.objects:
            raise FileExistsError(place)
        self.objects[place] = content if not self.num_damaged else content[:-1]
        if self.num_damaged:
            self.num_damaged -= 1
            raise ChecksumError

    def info(self, place: str) -> dict[str, int]:
        return {"size": len(self.objects[place])}

    def rm_file(self, place: str) -> None:
        del self.objects[place]


def test_what_arrives_damaged_is_not_there_and_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files()
    monkeypatch.setattr(object_store, "_open", lambda *_: (files, "bucket/run"))
    store = ObjectStore("gs://bucket/run", {})
    with pytest.raises(DamagedUpload):
        store.create("job.json", b"every byte")
    assert files.objects == {}
    files.num_damaged = 1
    Patience("gs://bucket/run", 60).ride_out(lambda: store.create("job.json", b"every byte"))
    assert files.objects == {"bucket/run/job.json": b"every byte"}


def test_requests_that_learn_together_that_checksums_are_refused_are_all_repeated() -> None:
    asked = threading.Barrier(2, timeout=60)

    def refuse_once() -> str:
        if "config_kwargs" in store.options:
            return "stored"
        asked.wait()
        raise said("InvalidArgument", 400)

    store = ObjectStore("s3://bucket/run-7", {})
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(store.ask, repeat(refuse_once, 2))) == ["stored", "stored"]


def test_a_request_that_is_refused_while_another_one_tries_without_checksums_is_repeated() -> None:
    tried, refused = threading.Event(), threading.Event()

    def find_out() -> str:  # its first retry fails for another reason, so checksums are sent again
        if "config_kwargs" in store.options:
            tried.set()
            assert refused.wait(60)
            raise said("SlowDown", 503)
        raise said("InvalidArgument", 400)

    def refuse_at_first() -> str:
        if not tried.is_set() or refused.is_set():
            return "stored"
        refused.set()
        raise said("InvalidArgument", 400)

    def come_later() -> str:
        assert tried.wait(60)
        return store.ask(refuse_at_first)

    store = ObjectStore("s3://bucket/run-7", {})
    with ThreadPoolExecutor(2) as threads:
        failed, later = threads.submit(store.ask, find_out), threads.submit(come_later)
        assert later.result() == "stored" and "SlowDown" in repr(failed.exception().__cause__)
    assert not store.options["config_kwargs"]


def test_files_opened_before_checksums_are_refused_are_not_used_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, learned = threading.Event(), threading.Event()

    def open_late(url: str, options: dict[str, object], outage_s: float) -> tuple[object, str]:
        config = options.get("config_kwargs")
        if not config:
            begun.set()
            assert learned.wait(60)
        return config, "bucket"

    monkeypatch.setattr(object_store, "_open", open_late)
    store = ObjectStore("s3://bucket/run-7", {})

    def refuse() -> str:
        if "config_kwargs" not in store.options:
            assert begun.wait(60)
            raise said("InvalidArgument", 400)
        learned.set()
        late.result()
        assert store._at("x")[0], "opened with the new options"
        return "stored"

    with ThreadPoolExecutor(1) as threads:
        late = threads.submit(store._at, "x")
        assert store.ask(refuse) == "stored"


def test_the_fix_for_a_clock_that_is_wrong_is_to_set_it() -> None:
    error = said("RequestTimeTooSkewed", 403)
    assert "clock" in str(retries.better_fix(error)) and trouble_of(error) == "refused"
