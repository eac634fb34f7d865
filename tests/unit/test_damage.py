"""Damage of an output is seen by `verify --files`, told by `render`, and taken out by `repair`."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import subprocess
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from framefleet import JobError, Store
from framefleet.api.outputs import CLAIM, DriverLock, HeldOutput
from framefleet.jobs.job.job_json import read_claim
from framefleet.jobs.render.claim import check_claim, claim
from framefleet.jobs.render.resolve import ResolvedJob
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import SCARCE, StoreError
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.parts import find_record
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from framefleet.pipeline.outputs.parts.seals import part_path
from framefleet.pipeline.outputs.stores.folder import Folder
from framefleet.plugins.compact.compaction import merge_small_parts
from framefleet.plugins.keep import damage
from framefleet.plugins.keep.damage import look_at
from framefleet.plugins.keep.pack_list import damages_of_pack, write_list
from framefleet.plugins.keep.repair.repair import Repairs, mend, put_back
from framefleet.plugins.keep.replay.compare import Again, compare
from framefleet.plugins.keep.verify.verify import damages_of, job_damage
from tests.commands import command
from tests.driving import hello_of
from tests.jobs import job_values, prompt_rows, resolved_from, write_table
from tests.made_up_workers import Workers, render_by
from tests.outputs import RUN, committed, committed_row_ids, write_part
from tests.rows import record
from tests.warm.process import start
from tools.chaos.crash_points import COMMANDS

NUM_ROWS = 6


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return committed(tmp_path_factory.mktemp("committed"), NUM_ROWS)


@pytest.fixture
def job(original: Path, tmp_path: Path) -> Path:
    """Return a job file whose output is whole, and this test's own."""
    shutil.copytree(original.parent / "out", tmp_path / "out")
    text = original.read_text().replace(str(original.parent / "out"), str(tmp_path / "out"))
    (tmp_path / "job.yaml").write_text(text)
    return tmp_path / "job.yaml"


@pytest.fixture
def out(job: Path) -> Path:
    return job.parent / "out"


def a_clip(out: Path) -> Path:
    return min(out.glob("clips/*/*.mp4"))


def a_part(out: Path) -> Path:
    return min(out.glob("records/*.parquet"))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def break_disk(file: Path) -> None:
    """Let reading fail as on a bad disk (EIO), and nothing else."""
    file.unlink()
    file.symlink_to("/proc/self/mem")


def copied(part: Path) -> None:
    shutil.copy(part, part.with_name("part-copy.parquet"))


def strange(file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    file.touch()


GONE, TOLD = "damaged: 1 clip with a record", "parts of its records have it"
# What is done; what `verify --files` finds; how `render` ends and what it says; records after `repair`.
DAMAGES: dict[str, tuple[Callable[[Path], Any], set[str], int, str, int]] = {
    "a deleted clip": (lambda out: a_clip(out).unlink(), {"missing"}, 1, GONE, 5),
    "a halved clip": (lambda out: halve(a_clip(out)), {"size"}, 1, GONE, 5),
    "a clip with a flipped byte": (lambda out: flip(a_clip(out)), {"bytes"}, 0, "nothing to do", 5),
    "a clip on a bad disk": (lambda out: break_disk(a_clip(out)), {"unreadable"}, 1, GONE, 5),
    "a part on a bad disk": (lambda out: break_disk(a_part(out)), {"part", "stray"}, 2, "is damaged", 4),
    "a part with a flipped byte": (lambda out: flip(a_part(out)), {"part", "stray"}, 2, "is damaged", 4),
    "a copied part": (lambda out: copied(a_part(out)), {"doubled"}, 0, "more than one record", 6),
    "a lost job.json": (lambda out: (out / "job.json").unlink(), {"job"}, 0, TOLD, 6),
    "half a job.json": (lambda out: halve(out / "job.json"), {"job"}, 0, TOLD, 6),
    "a strange folder": (lambda out: strange(out / "clips/zz/x.mp4"), {"foreign"}, 0, "nothing", 6),
    "a strange clip": (lambda out: strange(out / "clips/x.mp4"), {"foreign"}, 0, "nothing", 6),
    "another's file": (lambda out: (out / "records/.DS_Store").touch(), {"foreign"}, 0, "nothing", 6),
}


def kinds(out: Path) -> set[str]:
    return {damage.kind for damage in damages_of(Store(str(out)), Callback())}


def row_ids(out: Path) -> list[str]:
    return [row_id for part in committed_row_ids(Store(str(out))) for row_id in part]


@dataclass
class Held:
    """An output that nobody else wants."""

    epoch: int

    def check(self) -> None:
        """It is ours."""


def mended(out: Path) -> Repairs:
    store = Store(str(out))
    with DriverLock(store) as lock:
        put_back(HeldOutput(store, lock))
        found = mend(store, HeldOutput(store, lock), Callback())
        lock.seal()
    return found


class Dying(Store):
    """Makes this many changes, and then none."""

    left = 0

    def _ask(self, verb: str, *given: Any, **named: Any) -> Any:
        self.left -= verb in ("create", "write", "delete")
        if self.left < 0:
            raise StoreError("killed", "")
        return super()._ask(verb, *given, **named)


class Keeping(Store):
    """Deletes nothing, as where its process is killed before."""

    def delete_many(self, paths: Iterable[str]) -> None:
        """They stay."""


def test_parts_that_others_would_count_are_not_called_well(out: Path) -> None:
    store = Keeping(str(out))
    with DriverLock(store) as lock:
        assert merge_small_parts(HeldOutput(store, lock)).num_before > 1
    verified = command("verify", out, "--files")
    assert verified.exit_code == 1 and "all is well" not in verified.stderr
    assert "`framefleet compact " in verified.stderr
    assert "another part has its rows" in " ".join(verified.stdout.split())
    assert command("compact", out).exit_code == 0
    assert "all is well" in command("verify", out, "--files").stderr


def test_a_whole_output_is_said_to_be(job: Path, out: Path) -> None:
    verified = command("verify", out, "--files")
    assert (verified.exit_code, verified.stdout) == (0, "")
    assert "all is well" in verified.stderr
    for option in (("--row", "9bd6"), ("--sample", "3"), ("--fleet", job)):
        refused = command("verify", out, "--files", *option)
        assert refused.exit_code == 2 and f"{option[0]} is for rows to render" in refused.stderr
    assert command("repair", out, "--dry-run").stdout == "nothing to repair\n"
    assert "nothing to do" in command("render", job, exits=0).stderr
    assert mended(out).num_found == {}


@pytest.mark.parametrize(("damage", "found", "code", "said", "left"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found_told_and_taken_out(
    job: Path,
    damage: Callable[[Path], Any],
    found: set[str],
    code: int,
    said: str,
    left: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out, is_harmless = job.parent / "out", found == {"foreign"}
    damage(out)
    verified = command("verify", out, "--files", "--json")
    lines = [json.loads(line) for line in verified.stdout.splitlines()]
    assert verified.exit_code == (0 if is_harmless else 1)
    assert {line["kind"] for line in lines[:-1]} == found == set(lines[-1]["found"])
    dry = command("repair", out, "--dry-run")
    assert dry.exit_code == verified.exit_code
    if found != {"job"}:
        assert is_harmless != ("rows would then have no record" in dry.stderr)
    assert kinds(out) == found
    rendered = command("render", job) if found != {"job"} else command("plan", job)  # it mends job.json
    assert rendered.exit_code == code, rendered.output
    assert said in " ".join(rendered.output.split()) + caplog.text
    mended(out)
    assert kinds(out) <= {"stray", "foreign"}
    assert len(set(row_ids(out))) == len(row_ids(out)) == left


def a_parquet(*names: str) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: ["a" * 32] for name in names}), sink)
    return sink.getvalue().to_pybytes()


_FLIPPED = [(folder, flip) for folder in ("scores", "failures", "invalid", "logs", "rows", "answers")]


@pytest.mark.parametrize(("folder", "spoil"), [*_FLIPPED, ("failures", break_disk)])
def test_a_damaged_part_of_any_folder_is_found_and_moved_away(
    out: Path, folder: str, spoil: Callable[[Path], Any]
) -> None:
    content = a_parquet("row_id")
    part = out / part_path(folder, RUN, 1, content)
    Store(str(out)).write(part.relative_to(out).as_posix(), content)
    spoil(part)
    found = [damage for damage in damages_of(Store(str(out)), Callback()) if not damage.is_leftover]
    assert [(damage.kind, damage.path) for damage in found] == [("part", str(part.relative_to(out)))]
    assert command("verify", out, "--files").exit_code == 1
    assert command("repair", out, "--dry-run").exit_code == 1 and part.exists()
    assert "1 damaged part moved to damaged/" in command("repair", out, exits=1).stderr
    assert (out / "damaged" / part.relative_to(out)).is_symlink() == (spoil is break_disk)
    assert "nothing to repair" in command("repair", out, exits=0).stdout


@pytest.mark.parametrize("path", ["tables/added-1.parquet", "chosen/a/0.parquet"])
def test_a_table_that_cannot_be_read_is_found_and_moved_away(out: Path, path: str) -> None:
    Store(str(out)).write(path, a_parquet("prompt"))
    assert kinds(out) == set()
    halve(out / path)
    assert kinds(out) == {"part"}
    assert mended(out).num_set_aside == 1
    assert kinds(out) == set() and (out / "damaged" / path).exists()


def test_much_damage_is_said_in_a_screenful_and_a_lost_job_json_once(out: Path) -> None:
    for number in range(41):
        strange(out / f"clips/zz/{number}.mp4")
    halve(out / "job.json")
    verified = command("verify", out, "--files", exits=1)
    assert "and 22 more; --json lists all" in verified.stdout
    assert verified.output.count(TOLD) == 1


SHORT = [*(OSError(number, "short") for number in sorted(SCARCE)), MemoryError()]
SHORT += [OSError(errno.ENOMEM, "https://user:password@example.com/")]


CASES = [("read a clip", error) for error in SHORT]
CASES += [("hash a large clip", SHORT[0]), ("read a part", SHORT[0])]


@pytest.mark.parametrize(("way", "error"), CASES)
def test_what_a_machine_runs_out_of_is_no_damage(
    way: str, error: Exception, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Folder.read

    def read(folder: Folder, path: str, count: int | None = None) -> bytes:
        if path.startswith("clips/" if "clip" in way else "records/"):
            raise error
        return plain(folder, path, count)

    def fail(*_: object, **__: object) -> None:
        raise error

    before = sorted(out.rglob("*.*"))
    hashes = [(damage, "_AT_ONCE_BYTES", 1), (Folder, "sha256", fail)]
    for place, name, value in hashes if "hash" in way else [(Folder, "read", read)]:
        monkeypatch.setattr(place, name, value)
    with pytest.raises((StoreError, type(error))):
        mend(Store(str(out)), HeldOutput(Store(str(out)), Held(1)), Callback())
    assert sorted(out.rglob("*.*")) == before


def test_a_file_that_a_pack_lists_is_never_held_whole(tmp_path: Path) -> None:
    store, size = Store(str(tmp_path)), 1 << 28
    store.write("clips/a.mp4", b"a clip")
    write_list(store, ["clips/a.mp4"])
    with (tmp_path / "clips/a.mp4").open("r+b") as file:
        file.truncate(size)  # sparse: it may as well be of a terabyte
    tracemalloc.start()
    try:
        assert [damage.kind for damage in damages_of_pack(store)] == ["bytes"]
        assert tracemalloc.get_traced_memory()[1] < size // 2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("damage", [break_disk, Path.unlink, halve])
def test_a_row_whose_clip_cannot_be_read_is_compared(out: Path, damage: Callable[[Path], Any]) -> None:
    damage(clip := a_clip(out))
    store = Store(str(out))
    then = find_record(store, clip.stem)
    again = Again(record=then, media=Media(), frames=lambda: None, content=lambda: b"the clip")
    damages = look_at(store, values_of(then))
    assert compare(store, then, again, damages=damages).verdict == "file damaged"


def test_clips_of_a_damaged_part_wait_for_the_render_that_takes_them(out: Path) -> None:
    flip(a_part(out))
    found = mended(out)
    assert (found.num_set_aside, found.num_swept, found.num_rows) == (1, 0, 0)
    assert len(list(out.glob("clips/*/*.mp4"))) == NUM_ROWS
    assert len(list(out.glob("damaged/records/*.parquet"))) == 1
    assert mended(out).num_swept == 0, "no render came"
    for part in out.glob("records/*.parquet"):
        flip(part)
    assert kinds(out) == {"part", "stray"}
    assert mended(out).num_set_aside == 2, "all that were left"


def test_strays_are_swept_but_not_foreign_files_and_a_damaged_clip_is_none(out: Path) -> None:
    clip = a_clip(out)
    for file in (clip.with_name(clip.name.replace(".mp4", "-0123abcd.mp4")), clip.with_name("notes.txt")):
        file.write_bytes(b"")
    assert kinds(out) == {"stray", "foreign"}
    assert mended(out).num_swept == 1
    assert kinds(out) == {"foreign"}
    clip.with_name("notes.txt").unlink()
    flip(clip)
    with DriverLock(Store(str(out))) as lock:
        for held in (None, HeldOutput(Store(str(out)), lock)):
            assert mend(Store(str(out)), held, Callback()).num_found == {"bytes": 1}


def test_of_doubles_the_one_whose_clip_is_whole_stays(out: Path) -> None:
    part = a_part(out)
    table = pq.read_table(part)
    digests = pa.array(["0" * 64] * len(table))
    spoiled = table.set_column(table.column_names.index("media_sha256"), "media_sha256", digests)
    pq.write_table(spoiled, part.with_name("part-999999-20990101T000000-00000000-000001.parquet"))
    assert kinds(out) == {"bytes", "doubled"}
    assert mended(out).num_rows == 2
    assert kinds(out) == set()
    assert len(row_ids(out)) == NUM_ROWS


@pytest.mark.parametrize("column", ["path", "extra_outputs_path"])
@pytest.mark.parametrize("place", ["/etc/passwd", "../../x.mp4", "clips/00/x.mp4", "job.json"])
def test_a_record_opens_nothing_but_its_own_files(out: Path, column: str, place: str) -> None:
    part = a_part(out)
    table = pq.read_table(part)
    for name, value in {"extra_outputs_sha256": "0" * 64, column: place}.items():
        values = pa.array([value] * len(table))
        table = table.set_column(table.column_names.index(name), name, values)
    part.unlink()
    pq.write_table(table, out / "records" / "part-x.parquet")
    found = [one for one in damages_of(Store(str(out)), Callback()) if one.kind == "part"]
    assert [one.path for one in found if "gone" not in one.reason] == ["records/part-x.parquet"]


def test_a_repair_that_is_killed_anywhere_is_done_by_the_next(original: Path, tmp_path: Path) -> None:
    for steps in range(0, 24, 3):
        out = tmp_path / str(steps)
        shutil.copytree(original.parent / "out", out)
        a_clip(out).unlink()
        halve(max(out.glob("clips/*/*.mp4")))
        copied(a_part(out))
        halve(out / "job.json")
        store = Dying(str(out))
        for store.left, epoch in ((steps, 2), (1000, 3)):
            with contextlib.suppress(StoreError):
                put_back(HeldOutput(store, Held(epoch)))
                mend(store, HeldOutput(store, Held(epoch)), Callback())
        assert kinds(out) <= {"stray"}  # of rows that the render which follows gives a record
        assert len(row_ids(out)) == NUM_ROWS - 2


def test_job_json_of_an_output_whose_parts_do_not_hold_it_stays_lost(out: Path) -> None:
    (out / "job.json").unlink()
    for part in out.glob("records/*.parquet"):
        table = pq.read_table(part)
        part.unlink()
        pq.write_table(table.replace_schema_metadata(), out / "records" / f"part-{part.name[-20:]}")
    assert "no part in records/ has a copy" in command("repair", out, exits=2).stderr


LOSSES: dict[str, Callable[[Store], None]] = {
    "deleted": lambda store: store.delete(CLAIM),
    "cut short": lambda store: store.write(CLAIM, store.read(CLAIM, 100)),
    "empty": lambda store: store.write(CLAIM, b""),
}


@pytest.fixture
def resolved(tmp_path: Path) -> Iterator[ResolvedJob]:
    values = job_values(write_table(tmp_path / "t.parquet", prompt_rows(6)), tmp_path / "out")
    with resolved_from(values) as resolved:
        claim(resolved)
        yield resolved


def test_an_output_whose_files_a_plugin_has_changed_does_not_go_on_without_it(resolved: ResolvedJob) -> None:
    claimed = json.loads(resolved.store.read(CLAIM))
    assert claimed["file_steps"] == []
    claimed["job"]["tint"], claimed["file_steps"] = {"red": 40}, ["tint"]
    resolved.store.write(CLAIM, json.dumps(claimed).encode())
    check_claim(resolved)  # no clip is there yet
    render_by(Workers(resolved.store, hello_of(resolved), 1, {}), resolved)
    with pytest.raises(JobError, match=r"tint: {'red': 40} there, of a plugin that is not here; install it"):
        check_claim(resolved)
    assert job_damage(resolved.store) is None
    claimed["job"]["tint"]["red"] = 50
    resolved.store.write(CLAIM, json.dumps(claimed).encode())
    damage = job_damage(resolved.store)
    assert damage and "tint: {'red': 40} there, {'red': 50} here" in damage.reason


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_a_lost_job_json_is_written_again_and_another_job_is_refused(
    lose: Callable[[Store], None], resolved: ResolvedJob
) -> None:
    render_by(Workers(resolved.store, hello_of(resolved), 1, {}), resolved)
    whole = read_claim(resolved.store)
    lose(resolved.store)
    other = replace(resolved, job=resolved.job.model_copy(update={"table": "other.parquet"}))
    with pytest.raises(JobError, match="holds clips of another job"):
        check_claim(other)
    claim(resolved)
    assert read_claim(resolved.store) == whole
    resolved.store.delete_all("records")  # whose parts tell the job
    write_part(resolved.store, "records", RECORD_FIELDS, [values_of(record(1))], "of-an-earlier-version")
    lose(resolved.store)
    with pytest.raises(JobError, match=r"job\.json(.|\n)*put it back"):
        check_claim(resolved)


def check(*arguments: str) -> None:
    process = start("-m", "tools.chaos.crash_points", *arguments, stderr=subprocess.STDOUT)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed


def test_nothing_is_lost_doubled_changed_or_astray_after_a_kill() -> None:
    check("--every", "80")


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", COMMANDS)
def test_nor_after_a_kill_at_any_other_point(name: str) -> None:
    check(name)
