"""Many crashes, each judged: what the test runs a few of, and the long run thousands."""

from __future__ import annotations

import errno
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count, cycle
from pathlib import Path
from typing import Any

from crash_checks import BLOCKED, check_state
from crash_worker import EVERYTHING, TAKES_SPACE, Fault, Job, Worker, index_folder
from crash_workload import Model, make_script, models_of
from power_loss import EMPTY, PowerLoss, Record, Start, power_losses, read_log, read_tree, tree_after, write_tree

FAULTS = (
    Fault(0, errno.ENOSPC, 0, TAKES_SPACE, short_first=True),
    Fault(0, errno.EIO, 1, EVERYTHING),
    Fault(0, errno.ENOSPC, 1, TAKES_SPACE),
    Fault(0, errno.EIO, 1, "S"),
    Fault(0, errno.EIO, 0, EVERYTHING),
    Fault(0, errno.EDQUOT, 3, TAKES_SPACE),
)


@dataclass(frozen=True)
class Result:
    """One crash.

    Attributes:
        crash: which kind: "kill", "stop", "power", "strict", "recovery", "fault" or "fsync".
        seed: of the script.
        how: what else reproduces it: what ``Campaign.reproduce`` takes.
        problems: what was wrong.
        notes: what happened, to count it.
    """

    crash: str
    seed: int
    how: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"--seed {self.seed} --reproduce {self.crash}:{self.how}\n    " + "\n    ".join(self.problems)


class Campaign:
    """Crashes of one script."""

    def __init__(self, worker: Worker, folder: Path, seed: int, n_operations: int) -> None:
        """Run the script once without a crash, with a log.

        Args:
            worker: runs the script.
            folder: for workspaces; those of crashes with problems are kept.
            seed: of the script and of all choices.
            n_operations: length of the script.

        Raises:
            RuntimeError: the run failed, or its log misses something.
        """
        self.worker, self.folder, self.seed, self.n_operations = worker, folder, seed, n_operations
        self._models = models_of(make_script(seed, n_operations))
        self._numbers = count()
        job = self._job(log=True)
        outcome = worker.run(job)
        if outcome.problems or outcome.signal or outcome.acknowledged != n_operations + 1:
            raise RuntimeError(f"seed {seed} fails without a crash: {outcome}")
        self.n_file_operations = outcome.file_operations
        self.records = self._records_of(job)

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
        rng, n = random.Random(self.seed), min(n, self.n_file_operations)
        for number in range(n):
            first, last = (i * self.n_file_operations // n for i in (number, number + 1))
            yield self.stop(rng.randint(first + 1, last), torn=number % 2 == 1)

    def stop(self, at: int, *, torn: bool = False) -> Result:
        """A kill before a file operation or, if it is a write, in the middle of it."""
        return self._crash("stop", f"{at}:torn" if torn else str(at), kill_at=at, torn=torn)

    def power_losses(self, n: int, *, strict: bool = False) -> Iterator[Result]:
        """Up to ``n`` different states of the folder after the power went."""
        for loss in power_losses(self.records, n, self.seed, strict=strict):
            yield self._judge_loss("strict" if strict else "power", str(loss), loss)

    def losses_in_recovery(self, n: int, per_loss: int = 10) -> Iterator[Result]:
        """Power losses while an index is opened that a power loss left behind."""
        seed = 0
        while n > 0:
            seed += 1
            for loss in power_losses(self.records, 1, self.seed + seed):
                records, start = self._recover(loss)
                for second in power_losses(records, min(n, per_loss), self.seed, start=start):
                    n -= 1
                    yield self._judge_loss("recovery", f"{loss}:{second}", second, loss.acknowledged)

    def faults(self, n: int) -> Iterator[Result]:
        """Disk errors at file operations spread over the script."""
        rng = random.Random(self.seed)
        # Where most goes wrong: a commit can be done and yet be reported as failed.
        critical = [record.number for record in self.records if record.kind in "SUR" and not record.error]
        for number in range(n):
            at = rng.choice(critical) if rng.random() < 0.5 else rng.randint(1, self.n_file_operations)
            yield self.fault(replace(FAULTS[number % len(FAULTS)], at=at))

    def fault(self, fault: Fault) -> Result:
        """One disk error."""
        job = self._job(fault=fault)
        outcome = self.worker.run(job)
        problems = list(outcome.problems)
        if outcome.signal:
            problems.append(f"the process died of signal {outcome.signal}")
        if not problems and BLOCKED not in outcome.notes:
            problems = check_state(index_folder(job.workspace), self._models[-1], self._models[-1]).problems
        return self._judged(job.workspace, Result("fault", self.seed, str(fault), problems, outcome.notes))

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
            records = self._run_with_failed_fsync(at)
            failed = next((i for i, record in enumerate(records) if record.kind == "S" and record.error), 0)
            for loss in power_losses(records, min(n, per_run), self.seed + at, first=failed):
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
        if crash == "fault":
            return self.fault(Fault.parse(how))
        if crash == "fsync":
            records = self._run_with_failed_fsync(int(parts[0]))
            return self._judge_loss(crash, how, PowerLoss.at(records, int(parts[1]), int(parts[2]), parts[3]))
        loss = PowerLoss.at(self.records, int(parts[0]), int(parts[1]), parts[2], strict=crash == "strict")
        if crash != "recovery":
            return self._judge_loss(crash, how, loss)
        records, start = self._recover(loss)
        second = PowerLoss.at(records, int(parts[3]), int(parts[4]), parts[5], start=start)
        return self._judge_loss(crash, how, second, loss.acknowledged)

    def _job(self, **options: Any) -> Job:
        return Job(str(self.folder / f"{self.seed}-{next(self._numbers)}"), self.seed, self.n_operations, **options)

    def _crash(self, crash: str, how: str, **options: Any) -> Result:
        job = self._job(**options)
        outcome = self.worker.run(job)
        problems, notes = list(outcome.problems), list(outcome.notes)
        if not outcome.signal and not problems:
            notes.append("came after the end")
        verdict = check_state(index_folder(job.workspace), *self._around(outcome.acknowledged))
        problems, notes = problems + verdict.problems, notes + verdict.notes
        return self._judged(job.workspace, Result(crash, self.seed, how, problems, notes))

    def _judge_loss(self, crash: str, how: str, loss: PowerLoss, acknowledged: int | None = None) -> Result:
        workspace = self._job().workspace
        folder = index_folder(workspace)
        write_tree(loss.tree, folder.parent)
        verdict = check_state(folder, *self._around(loss.acknowledged if acknowledged is None else acknowledged))
        return self._judged(workspace, Result(crash, self.seed, how, verdict.problems, verdict.notes))

    def _recover(self, loss: PowerLoss) -> tuple[list[Record], Start]:
        """What opening the index does after a power loss; nothing where it can't be opened."""
        job = self._job(recover=True, log=True)
        root = index_folder(job.workspace).parent
        write_tree(loss.tree, root)
        start = Start.of(root)
        outcome = self.worker.run(job)
        records = self._records_of(job, start)
        return ([] if outcome.problems else records), start

    def _run_with_failed_fsync(self, at: int) -> list[Record]:
        job = self._job(log=True, fault=Fault(at, errno.EIO, 1, "S"))
        self.worker.run(job)  # what is wrong with the run itself is for ``fault`` to say
        return self._records_of(job)

    def _records_of(self, job: Job, start: Start = EMPTY) -> list[Record]:
        root = index_folder(job.workspace).parent.resolve()
        records = read_log(Path(job.workspace) / "log", root)
        if tree_after(records, random.Random(0), "everything", start=start) != read_tree(root):
            raise RuntimeError(f"the log of {job} doesn't give the folder that it led to: something writes unseen")
        shutil.rmtree(job.workspace)
        return records

    def _around(self, acknowledged: int) -> tuple[Model | None, Model]:
        """The documents after the last acknowledged operation, and those after the next one."""
        before = self._models[acknowledged] if acknowledged else None
        return before, self._models[min(acknowledged + 1, len(self._models) - 1)]

    def _judged(self, workspace: str, result: Result) -> Result:
        if result.problems:
            return replace(result, problems=[*result.problems, f"kept in {workspace}"])
        shutil.rmtree(workspace)
        return result
