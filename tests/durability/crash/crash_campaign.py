"""Many crashes, each judged: what the test runs a few of, and the long run thousands."""

from __future__ import annotations

import errno
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count, cycle
from pathlib import Path
from typing import Any

from crash_checks import PROBE, check_state
from crash_faults import SILENT
from crash_folders import start_model, start_tree
from crash_watchers import Reader
from crash_worker import EVERYTHING, TAKES_SPACE, Fault, Job, Worker, index_folder
from crash_workload import FIRST, Model, Scenario, make_script, models_of
from power_loss import PowerLoss, Record, Start, power_losses, read_log, read_tree, tree_after, write_tree

from muvera_core import check_index

FAULTS = (
    Fault(0, errno.ENOSPC, 0, TAKES_SPACE, short_first=True),
    Fault(0, errno.EIO, 1, EVERYTHING),
    Fault(0, errno.ENOSPC, 1, TAKES_SPACE),
    Fault(0, errno.EIO, 1, "S"),
    Fault(0, errno.EIO, 0, EVERYTHING),
    Fault(0, errno.EDQUOT, 3, TAKES_SPACE),
)

N_SEARCHERS = 2


@dataclass(frozen=True)
class Result:
    """One crash.

    Attributes:
        crash: which kind: "kill", "stop", "threads", "reader", "power", "strict", "recovery", "fsync" or "fault".
        scenario: what was there at the start.
        seed: of the script.
        how: what else reproduces it: what ``Campaign.reproduce`` takes.
        problems: what was wrong.
        notes: what happened, to count it.
    """

    crash: str
    scenario: Scenario
    seed: int
    how: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        options = f"--scenario {self.scenario} --seed {self.seed} --reproduce {self.crash}:{self.how}"
        return "\n    ".join([options, *self.problems])


class Campaign:
    """Crashes of one script."""

    def __init__(self, worker: Worker, folder: Path, seed: int, n_operations: int, scenario: Scenario = "life") -> None:
        """Run the script once without a crash, with a log.

        Args:
            worker: runs the script.
            folder: for workspaces; those of crashes with problems are kept.
            seed: of the script and of all choices.
            n_operations: length of the script.
            scenario: what is there at the start.

        Raises:
            RuntimeError: the run failed, or its log misses something.
        """
        self.worker, self.folder, self.seed, self.n_operations = worker, folder, seed, n_operations
        self.scenario: Scenario = scenario
        start = start_model(scenario, seed, n_operations)
        self._models = models_of(make_script(seed, n_operations, scenario), start)
        self._numbers = count()
        self._start_tree = start_tree(scenario, seed, n_operations, folder / f"{scenario}-{seed}-start")
        self._n_whole: int | None = None
        job = self._job(log=True)
        if scenario == "repair":
            self._n_whole = check_index(index_folder(job.workspace)).n_documents
            shutil.rmtree(job.workspace)
            job = self._job(log=True)
        self._start = Start.of(index_folder(job.workspace).parent)
        outcome = worker.run(job)
        if outcome.problems or outcome.signal or outcome.acknowledged != n_operations + 1:
            raise RuntimeError(f"{scenario} {seed} fails without a crash: {outcome}")
        self.n_file_operations = outcome.file_operations
        self.records = self._records_of(job, self._start)

    def kills(self, n: int) -> Iterator[Result]:
        """Kills within the time that the script takes."""
        rng, job = random.Random(self.seed), self._job()
        seconds = self.worker.run(job).seconds  # a log slows the script down
        shutil.rmtree(job.workspace)
        for _ in range(n):
            yield self.kill(rng.uniform(0, seconds))

    def kill(self, after: float) -> Result:
        """A kill some seconds after the start: not exactly reproducible."""
        return self._crash("kill", f"{after:.6f}", kill_after=after)

    def stops(self, n: int) -> Iterator[Result]:
        """Kills spread over the script's file operations, every second one inside of a write."""
        for number, at in enumerate(self._spread(n)):
            yield self.stop(at, torn=number % 2 == 1)

    def stop(self, at: int, *, torn: bool = False) -> Result:
        """A kill before a file operation or, if it is a write, in the middle of it."""
        return self._crash("stop", _place(at, torn), kill_at=at, torn=torn)

    def stops_beside_threads(self, n: int) -> Iterator[Result]:
        """The same while threads search, which don't do any of these operations."""
        for number, at in enumerate(self._spread(n)):
            yield self.stop_beside_threads(at, torn=number % 2 == 1)

    def stop_beside_threads(self, at: int, *, torn: bool = False) -> Result:
        """One of these; what the threads find is judged where the kill comes after the end."""
        return self._crash("threads", _place(at, torn), kill_at=at, torn=torn, searchers=N_SEARCHERS)

    def stops_beside_a_reader(self, n: int) -> Iterator[Result]:
        """Kills while another process has the index open for reading, every second one in the midst of a commit."""
        databases = {record.inode for record in self.records if record.path.endswith(".sqlite")}
        commits = [record.number for record in self.records if record.kind == "W" and record.inode in databases]
        rng = random.Random(self.seed)
        for number, at in enumerate(self._spread(n)):
            at = rng.choice(commits) if number % 4 in (1, 2) else at
            yield self.stop_beside_a_reader(at, torn=number % 2 == 1, reader_first=number % 4 < 2)

    def stop_beside_a_reader(self, at: int, *, torn: bool = False, reader_first: bool = False) -> Result:
        """One of these. Then the reader answers on and refreshes, and a new writer goes on, in either order."""
        job = self._job(kill_at=at, torn=torn)
        folder, problems, notes = index_folder(job.workspace), list[str](), list[str]()
        with Reader(folder, self._models) as reader:
            outcome = self.worker.run(job)
            reader.stop()
            problems += outcome.problems
            before, after = self._around(outcome.acknowledged)
            models = [after] if before is None else [before, after]
            journal = folder / "documents.sqlite-journal"
            if journal.exists() and journal.read_bytes()[:1] not in (b"", b"\0"):
                notes.append(f"a commit to undo, by the {'reader' if reader_first else 'next writer'}")
            if not reader.saw_an_index:
                notes.append("the reader saw no index")
            elif not problems + reader.problems:
                reader.require_the_state_seen_or_a_later_one("after the kill")
                if reader_first:
                    held = reader.refreshed(models, "before the next writer")
                    models = models if held is None else [held]
                again = replace(job, kill_at=0, torn=False, recover=True, again=True, extend=True)
                problems += self.worker.run(again).problems
                models = [{**model, PROBE.id: PROBE} for model in models]
                if not problems and reader.refreshed(models, "after the next writer") is not None:
                    before, after = models[0], models[-1]
            problems += reader.problems
        if not problems:
            problems = check_state(folder, before, after)
        how = _place(at, torn) + (":first" if reader_first else "")
        return self._judged(job.workspace, self._result("reader", how, problems, notes))

    def _spread(self, n: int) -> Iterator[int]:
        rng, n = random.Random(self.seed), min(n, self.n_file_operations)
        for number in range(n):
            first, last = (i * self.n_file_operations // n for i in (number, number + 1))
            yield rng.randint(first + 1, last)

    def power_losses(self, n: int, *, strict: bool = False) -> Iterator[Result]:
        """Up to ``n`` different states of the folder after the power went."""
        for loss in power_losses(self.records, n, self.seed, strict=strict, start=self._start):
            yield self._judge_loss("strict" if strict else "power", str(loss), loss)

    def losses_in_recovery(self, n: int, per_loss: int = 10) -> Iterator[Result]:
        """Power losses while an index is opened that a power loss left behind."""
        seed = 0
        while n > 0:
            seed += 1
            for loss in power_losses(self.records, 1, self.seed + seed, start=self._start):
                records, start = self._recover(loss)
                seen = 0
                for second in power_losses(records, min(n, per_loss), self.seed, start=start):
                    n, seen = n - 1, seen + 1
                    yield self._judge_loss("recovery", f"{loss}:{second}", second, loss.acknowledged)
                if not records and not seen:  # it can't be opened, which is a result, too
                    n -= 1
                    yield self._judge_loss("recovery", str(loss), loss)

    def faults(self, n: int) -> Iterator[Result]:
        """Disk errors at file operations spread over the script."""
        rng = random.Random(self.seed)
        # Where most goes wrong: a commit can be done and yet be reported as failed.
        critical = [record.number for record in self.records if record.kind in "SUR" and not record.error]
        for number in range(n):
            at = rng.choice(critical) if rng.random() < 0.5 else rng.randint(1, self.n_file_operations)
            yield self.fault(replace(FAULTS[number % len(FAULTS)], at=at), beside_threads=number % 4 == 3)

    def fault(self, fault: Fault, *, beside_threads: bool = False) -> Result:
        """One disk error."""
        job = self._job(fault=fault, log=True, searchers=N_SEARCHERS * beside_threads)
        outcome = self.worker.run(job)
        problems = list(outcome.problems)
        if outcome.signal:
            problems.append(f"the process died of signal {outcome.signal}")
        notes = [f"{note}: {self._failures(job)}" if note == SILENT else note for note in outcome.notes]
        if not problems:
            problems = check_state(index_folder(job.workspace), self._models[-1], self._models[-1])
        how = f"{fault}:beside" if beside_threads else str(fault)
        return self._judged(job.workspace, self._result("fault", how, problems, notes))

    def losses_after_failed_fsyncs(self, n: int, per_run: int = 5) -> Iterator[Result]:
        """Power losses after runs in which one fsync failed and the script went on."""
        rng = random.Random(self.seed)
        fsyncs: dict[str, list[int]] = {}
        for record in self.records:
            if record.kind == "S":
                fsyncs.setdefault(record.path, []).append(record.number)
        for path in cycle(fsyncs):  # most are of the same few files
            if n <= 0:
                break
            at = rng.choice(fsyncs[path])
            records, start = self._run_with_failed_fsync(at)
            failed = next((i for i, record in enumerate(records) if record.kind == "S" and record.error), 0)
            for loss in power_losses(records, min(n, per_run), self.seed + at, start=start, first=failed):
                n -= 1
                yield self._judge_loss("fsync", f"{at}:{loss}", loss)

    def judge(self, loss: PowerLoss) -> Result:
        """What a power loss leads to."""
        return self._judge_loss("power", str(loss), loss)

    def reproduce(self, what: str) -> Result:
        """The crash that a result describes as ``crash:how``."""
        crash, _, how = what.partition(":")
        parts: list[Any] = how.split(":")
        if crash == "kill":
            return self.kill(float(how))
        if crash == "stop":
            return self.stop(int(parts[0]), torn="torn" in parts)
        if crash == "threads":
            return self.stop_beside_threads(int(parts[0]), torn="torn" in parts)
        if crash == "reader":
            return self.stop_beside_a_reader(int(parts[0]), torn="torn" in parts, reader_first="first" in parts)
        if crash == "fault":
            return self.fault(Fault.parse(how.removesuffix(":beside")), beside_threads="beside" in parts)
        if crash == "fsync":
            records, start = self._run_with_failed_fsync(int(parts[0]))
            loss = PowerLoss.at(records, int(parts[1]), int(parts[2]), parts[3], start=start)
            return self._judge_loss(crash, how, loss)
        loss = PowerLoss.at(
            self.records, int(parts[0]), int(parts[1]), parts[2], strict=crash == "strict", start=self._start
        )
        if crash != "recovery" or len(parts) == 3:
            return self._judge_loss(crash, how, loss)
        records, start = self._recover(loss)
        second = PowerLoss.at(records, int(parts[3]), int(parts[4]), parts[5], start=start)
        return self._judge_loss(crash, how, second, loss.acknowledged)

    def _job(self, *, empty: bool = False, **options: Any) -> Job:
        """A job in a new workspace, which holds what there is at the start unless it is to be ``empty``."""
        workspace = self.folder / f"{self.scenario}-{self.seed}-{next(self._numbers)}"
        if not empty:
            write_tree(self._start_tree, index_folder(workspace).parent)
        return Job(str(workspace), self.seed, self.n_operations, self.scenario, **options)

    def _result(self, crash: str, how: str, problems: list[str], notes: list[str]) -> Result:
        return Result(crash, self.scenario, self.seed, how, problems, notes)

    def _crash(self, crash: str, how: str, **options: Any) -> Result:
        job = self._job(**options)
        outcome = self.worker.run(job)
        problems, notes = list(outcome.problems), list(outcome.notes)
        if not outcome.signal and not problems:
            notes.append("came after the end")
        problems += self._check(index_folder(job.workspace), outcome.acknowledged)
        return self._judged(job.workspace, self._result(crash, how, problems, notes))

    def _judge_loss(self, crash: str, how: str, loss: PowerLoss, acknowledged: int | None = None) -> Result:
        workspace = self._job(empty=True).workspace
        folder = index_folder(workspace)
        write_tree(loss.tree, folder.parent)
        problems = self._check(folder, loss.acknowledged if acknowledged is None else acknowledged)
        return self._judged(workspace, self._result(crash, how, problems, []))

    def _check(self, folder: Path, acknowledged: int) -> list[str]:
        """What is wrong with a folder after a crash."""
        return check_state(folder, *self._around(acknowledged), n_whole=None if acknowledged else self._n_whole)

    def _recover(self, loss: PowerLoss) -> tuple[list[Record], Start]:
        """What opening the index does after a power loss; nothing where it can't be opened."""
        job = self._job(empty=True, recover=True, again=loss.acknowledged > 0, log=True)
        root = index_folder(job.workspace).parent
        write_tree(loss.tree, root)
        start = Start.of(root)
        outcome = self.worker.run(job)
        records = self._records_of(job, start)
        return ([] if outcome.problems else records), start

    def _failures(self, job: Job) -> str:
        """Which operations on which files failed in a run."""
        root = index_folder(job.workspace).parent.resolve()
        records = read_log(Path(job.workspace) / "log", root)
        paths = {record.inode: record.path for record in records if record.path}
        failed = [record for record in records if record.error not in (0, errno.ENOENT, errno.EEXIST)]
        names = [f"{record.kind} {record.path or paths.get(record.inode, '?')}" for record in failed]
        return ", ".join(dict.fromkeys(re.sub(r"\d+", "N", name) for name in names))

    def _run_with_failed_fsync(self, at: int) -> tuple[list[Record], Start]:
        job = self._job(log=True, fault=Fault(at, errno.EIO, 1, "S"))
        start = Start.of(index_folder(job.workspace).parent)
        self.worker.run(job)  # what is wrong with the run itself is for ``fault`` to say
        return self._records_of(job, start), start

    def _records_of(self, job: Job, start: Start) -> list[Record]:
        root = index_folder(job.workspace).parent.resolve()
        records = read_log(Path(job.workspace) / "log", root)
        if tree_after(records, random.Random(0), "everything", start=start) != read_tree(root):
            raise RuntimeError(f"the log of {job} doesn't give the folder that it led to: something writes unseen")
        shutil.rmtree(job.workspace)
        return records

    def _around(self, acknowledged: int) -> tuple[Model | None, Model]:
        """The documents after the last acknowledged operation, and those after the next one."""
        before = self._models[acknowledged] if acknowledged or FIRST[self.scenario] != "create" else None
        return before, self._models[min(acknowledged + 1, len(self._models) - 1)]

    def _judged(self, workspace: str, result: Result) -> Result:
        if result.problems:
            return replace(result, problems=[*result.problems, f"kept in {workspace}"])
        shutil.rmtree(workspace)
        return result


def _place(at: int, torn: bool) -> str:
    return f"{at}:torn" if torn else str(at)
