"""From the files that a table names to what each holds, or why it is refused: read once, remembered on disk.

About 200 bytes of disk for each answer, see `guards/temporary_tables.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import weakref
from collections.abc import Iterable
from dataclasses import asdict
from queue import Empty, SimpleQueue

from framefleet.pipeline.errors import InputError, Refused
from framefleet.pipeline.guards.temporary_tables import temporary_tables
from framefleet.pipeline.model.specs.signature import MediaKind
from framefleet.pipeline.rows.inputs.access import Inputs
from framefleet.pipeline.rows.inputs.pictures import Described, Describer
from framefleet.pipeline.rows.tables.rows import Finder

Answer = Described | Refused
_Questions = SimpleQueue[tuple[str, MediaKind] | None]  # None: no more
_Answers = SimpleQueue[tuple[bytes, Answer | Exception]]

# Reading waits for networks. Each thread may hold a file.
_NUM_THREADS = 16
# How far the others go on while one host is slow.
MAX_UNDER_WAY = 16 * _NUM_THREADS
_SCHEMA = "CREATE TABLE answers (key BLOB PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID;"


class InputIndex(Finder):
    """What the files hold that `inputs` may read, each asked for once; for one thread at a time.

    A store of a root that does not answer is not a row's fault: both methods raise its StoreError.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._inputs, self._describer = inputs, Describer()
        self._db = temporary_tables(_SCHEMA)
        self._questions: _Questions = SimpleQueue()
        self._answers: _Answers = SimpleQueue()
        self._under_way: set[bytes] = set()
        self._has_threads = False
        # Of a renderer's, which nobody closes, the threads end too, and with them what they have started.
        self._dismiss = weakref.finalize(self, _dismiss, self._questions)
        self._dismiss.atexit = False

    def prefetch(self, wanted: Iterable[tuple[str, MediaKind]]) -> None:
        for uri, kind in wanted:
            key = _key(uri, kind)
            if key in self._under_way or self._recall(key) is not None:
                continue
            while len(self._under_way) >= MAX_UNDER_WAY:
                self._take_answer()
            if not self._has_threads:
                self._has_threads = True
                of_threads = (self._inputs, self._describer, self._questions, self._answers)  # not this index
                for number in range(_NUM_THREADS):
                    # Daemons, which a pool's threads are not: after Ctrl-C nobody waits for slow hosts.
                    name = f"input-{number}"
                    threading.Thread(target=_work, args=of_threads, name=name, daemon=True).start()
            self._under_way.add(key)
            self._questions.put((uri, kind))
        while self._under_way:
            self._take_answer()

    def find(self, uri: str, kind: MediaKind) -> Answer:
        """Return what `uri` holds, or why it is no such `kind`; what was not prefetched is read now."""
        self.prefetch([(uri, kind)])
        answer = self._recall(_key(uri, kind))
        assert answer is not None
        return answer

    def knows(self, uri: str, kind: MediaKind) -> bool:
        return self._recall(_key(uri, kind)) is not None

    def remember(self, uri: str, kind: MediaKind, described: Described) -> None:
        """Take what an earlier run found in a file, which is then not read again."""
        if not self.knows(uri, kind):
            self._remember(_key(uri, kind), described)

    def locate(self, uri: str) -> str:
        return self._inputs.locate(uri)

    def close(self) -> None:
        self._dismiss()
        self._describer.close()
        self._db.close()

    def _take_answer(self) -> None:
        key, answer = self._answers.get()
        self._under_way.remove(key)
        if isinstance(answer, Exception):
            raise answer
        self._remember(key, answer)

    def _remember(self, key: bytes, answer: Answer) -> None:
        self._db.execute("INSERT INTO answers VALUES (?, ?)", (key, json.dumps(asdict(answer))))

    def _recall(self, key: bytes) -> Answer | None:
        row = self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        values = json.loads(row[0])
        return Refused(**values) if "reason" in values else Described(**values)


def _work(inputs: Inputs, describer: Describer, questions: _Questions, answers: _Answers) -> None:
    while (question := questions.get()) is not None:
        answer: Answer | Exception
        try:
            answer = describer.describe(inputs.read(question[0]), question[1])
        except InputError as error:
            answer = Refused(reason=error.problem, fix=error.fix)
        except Exception as error:  # a thread has no caller: raised where the answer is taken
            answer = error
        answers.put((_key(*question), answer))
    describer.close()


def _dismiss(questions: _Questions) -> None:
    """Have all threads end after what they are at."""
    with contextlib.suppress(Empty):
        while True:
            questions.get_nowait()
    for _ in range(_NUM_THREADS):
        questions.put(None)


def _key(uri: str, kind: MediaKind) -> bytes:
    """Return 16 bytes in place of a URL of maybe thousands."""
    return hashlib.sha256(f"{kind} {uri}".encode("utf-8", "surrogatepass")).digest()[:16]
