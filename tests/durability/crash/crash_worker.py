"""The process that crashes: forks a child for each job, with ``iolog`` preloaded.

Importing takes longer than a run, so one process imports and then forks a child for each job, which it reads from
standard input, one JSON object a line; it answers in the same way how the child ended. ``Worker`` is the other side.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crash_workload import Scenario

    from muvera_core import MuveraIndex

SOURCE = Path(__file__).with_name("iolog.c")
# Kinds of operations, as iolog names them.
EVERYTHING = "WCTSRUDXL"
# What needs space. Delayed allocation makes a sync fail, too.
TAKES_SPACE = "WCDSL"
SECONDS_FOR_A_JOB = 60


@dataclass(frozen=True)
class Fault:
    """Operations from number ``at`` on fail: ``count`` of them, or until the job heals it if that is 0."""

    at: int
    error: int = errno.ENOSPC
    count: int = 0
    kinds: str = EVERYTHING
    short_first: bool = False

    def __str__(self) -> str:
        parts = [errno.errorcode[self.error], str(self.count), str(self.at), self.kinds]
        return ":".join(parts + ["short"] * self.short_first)

    @classmethod
    def parse(cls, text: str) -> Fault:
        """The inverse of ``str``."""
        name, count, at, kinds, *short = text.split(":")
        return cls(int(at), getattr(errno, name), int(count), kinds, bool(short))


@dataclass(frozen=True)
class Job:
    """One run of a script.

    Attributes:
        workspace: holds ``root/index``, the files ``acks`` and, if ``log``, ``log``.
        scenario: what ``root`` holds at the start.
        recover: don't run the script: do its first operation on what a crash left, or open the index if ``again``.
        extend: after that, add a document.
        searchers: so many threads search meanwhile.
        kill_at: the file operation before which the child kills itself; 0 for none.
        torn: if that is a write, do half of it.
        kill_after: seconds after which the child is killed.
    """

    workspace: str
    seed: int
    n_operations: int
    scenario: Scenario = "life"
    log: bool = False
    kill_at: int = 0
    torn: bool = False
    kill_after: float | None = None
    fault: Fault | None = None
    recover: bool = False
    again: bool = False
    extend: bool = False
    searchers: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        signal: that killed it, or 0.
        acknowledged: how many operations returned.
        file_operations: how many iolog counted, if the job lived to tell.
        seconds: how long it took, if the job lived to tell.
        problems: what was wrong, in words.
        notes: what happened, to count it.
    """

    signal: int
    acknowledged: int
    file_operations: int = 0
    seconds: float = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def missing_requirement() -> str | None:
    """What this system lacks to run the harness, or None."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return "Linux with glibc is needed to preload a library that logs file operations"
    if shutil.which("cc") is None:
        return "a C compiler (cc) is needed to build the library that logs file operations"
    return None


def build_iolog(folder: Path) -> Path:
    """Compile the library."""
    library = folder / "iolog.so"
    command = ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library


class Worker:
    """A process that runs jobs."""

    def __init__(self, library: Path) -> None:
        # OpenBLAS's threads don't live through a fork.
        environment = {**os.environ, "LD_PRELOAD": str(library), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def run(self, job: Job) -> Outcome:
        """Run a job, in a workspace that is new unless it holds what to start from."""
        (Path(job.workspace) / "root").mkdir(parents=True, exist_ok=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the crash worker ended; its error is above")
        return Outcome(**json.loads(answer))

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=10)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def index_folder(workspace: str | Path) -> Path:
    return Path(workspace) / "root" / "index"


class IoLog:
    """The preloaded library's functions."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.iolog_heal.restype = self._library.iolog_number.restype = ctypes.c_uint64

    def start(self, job: Job) -> None:
        workspace = Path(job.workspace).resolve()
        log = str(workspace / "log") if job.log else ""
        started = self._library.iolog_start(
            str(workspace / "root").encode(),
            str(workspace / "acks").encode(),
            log.encode(),
            ctypes.c_uint64(job.kill_at),
            int(job.torn),
        )
        if started:
            raise OSError(f"{log} can't be written")
        if job.fault is not None:
            self.fail(job.fault)

    def fail(self, fault: Fault) -> None:
        self._library.iolog_fail(
            ctypes.c_uint64(fault.at),
            fault.error,
            ctypes.c_uint64(fault.count),
            fault.kinds.encode(),
            int(fault.short_first),
        )

    def heal(self) -> int:
        """No more failures. How many there were."""
        return int(self._library.iolog_heal())

    def number(self) -> int:
        return int(self._library.iolog_number())


def _serve() -> None:
    # Imported before the fork, so that no child has to.
    modules = ("crash_checks", "crash_faults", "crash_folders", "crash_watchers", "crash_workload")
    workload = [importlib.import_module(name) for name in modules][-1]
    workload.use_small_limits()
    for line in sys.stdin:
        fields: dict[str, Any] = json.loads(line)
        fault = fields.pop("fault")
        job = Job(**fields, fault=None if fault is None else Fault(**fault))
        child = os.fork()
        if child == 0:
            _run_child(job)
        if job.kill_after is not None:
            time.sleep(job.kill_after)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        outcome: dict[str, Any] = {"signal": killed, "acknowledged": _acknowledged(Path(job.workspace) / "acks")}
        told = Path(job.workspace) / "told"
        if told.exists():
            outcome |= json.loads(told.read_text())
        print(json.dumps(outcome), flush=True)


def _acknowledged(acks: Path) -> int:
    return acks.read_bytes().count(b"\n") if acks.exists() else 0


def _run_child(job: Job) -> None:
    signal.alarm(SECONDS_FOR_A_JOB)
    told: dict[str, Any]
    try:
        told = _run_script(job)
    except BaseException:
        told = {"problems": [traceback.format_exc()]}
    try:
        (Path(job.workspace) / "told").write_text(json.dumps(told))
    finally:
        os._exit(0)


def _run_script(job: Job) -> dict[str, Any]:
    import crash_faults
    from crash_folders import start_model
    from crash_watchers import Searchers
    from crash_workload import make_script, models_of, perform

    script, folder = make_script(job.seed, job.n_operations, job.scenario), index_folder(job.workspace)
    start = start_model(job.scenario, job.seed, job.n_operations)
    acks = os.open(Path(job.workspace) / "acks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    iolog = IoLog()
    iolog.start(job)
    started = time.perf_counter()
    if job.recover:
        _recover(job, folder)
        return {"file_operations": iolog.number()}
    problems: list[str] = []
    notes: list[str] = []
    with Searchers(job.searchers, models_of(script, start)) as searchers:

        def returned(number: int, index: MuveraIndex) -> None:
            os.write(acks, f"{number}\n".encode())
            searchers.returned(number, index)

        if job.fault is not None:
            problems, notes = crash_faults.run_through_fault(script, start, folder, iolog, returned)
        else:
            index = None
            for number, operation in enumerate(script):
                index = perform(index, operation, folder)
                returned(number, index)
            assert index is not None
            index.close()
    if job.searchers and not searchers.n_searches and not notes:
        problems.append("no search came through")
    return {
        "file_operations": iolog.number(),
        "seconds": time.perf_counter() - started,
        "problems": problems + searchers.problems,
        "notes": notes,
    }


def _recover(job: Job, folder: Path) -> None:
    from crash_checks import extend
    from crash_workload import FIRST, Operation, perform

    from muvera_core.errors import NotAnIndexError

    first = Operation(FIRST[job.scenario])
    if job.again or first.kind == "create":
        try:
            index = perform(None, Operation("reopen"), folder)
        except NotAnIndexError:
            if job.again:
                raise
            index = perform(None, first, folder)
    else:
        index = perform(None, first, folder)
    with index:
        if job.extend:
            extend(index, {})


if __name__ == "__main__":
    _serve()
