"""The process of a member of a shard: an actor of Ray that opens the shard's folder and answers for it."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from muvera_core.distributed.answers import Answer, answer
from muvera_core.distributed.cluster_folder import remove_generations
from muvera_core.distributed.lines import LineAddress, LineServer
from muvera_core.distributed.ray_module import require_ray
from muvera_core.distributed.shard import Shard
from muvera_core.distributed.shard_copying import Page, ShardSettings, ShardSource, ShardTarget
from muvera_core.encoders import TokenEncoder
from muvera_core.errors import IndexClosedError, IndexLockedError, StorageError
from muvera_core.index import MuveraIndex

Role = Literal["primary", "replica"]
# An encoder, or a function or class that makes it in each process. None for the bundled one.
EncoderSource = TokenEncoder | Callable[[], TokenEncoder] | None

# A primary that takes the place of another one waits this long for the system to release its lock.
_LOCK_TIMEOUT = 15.0
_LOCK_PAUSE = 0.1
# Threads by kind of call. Reads come over lines, so that none of these calls delays them.
CONCURRENCY = {"write": 1, "copy": 2, "control": 4}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemberPlan:
    """All that a process needs to be a member of a shard.

    Attributes:
        shard: the shard's number.
        role: a primary writes to the folder, a replica reads what the primary has committed.
        folder: the shard's folder, an ordinary index.
        encoder: see ``EncoderSource``.
        settings: arguments of ``MuveraIndex.create`` for a shard that does not exist yet. None if it exists.
        device: the device to search on; see ``MuveraIndex.open``.
        device_memory: see ``MuveraIndex.open``.
        shard_class: what answers calls from the index.
        removes_leftovers: whether it removes the folders of other generations on its node.
    """

    shard: int
    role: Role
    folder: Path
    encoder: EncoderSource = None
    settings: Mapping[str, Any] | None = None
    device: str = "cpu"
    device_memory: int | None = None
    shard_class: Callable[[MuveraIndex], Shard] = field(default=Shard)
    removes_leftovers: bool = False


class ShardMember:
    """Runs in the member's process. Ray starts it again, with the same plan, when the process dies.

    The index is opened by the first call that needs it, not by ``__init__``: Ray gives an actor up for good if that
    fails, but a folder that is locked or not mounted yet may be there a moment later.
    """

    def __init__(self, plan: MemberPlan) -> None:
        self._plan = plan
        self._opening = threading.Lock()
        self._shard: Shard | None = None
        self._lines: LineServer | None = None
        self._is_closed = False
        self._read_from: ShardSource | None = None
        self._target: ShardTarget | None = None

    def line(self) -> Answer:
        """The address for reads, as soon as the index is open. Its error if it cannot be opened."""
        return answer(self._line)

    def _line(self) -> LineAddress:
        self._require_shard()
        assert self._lines is not None
        return self._lines.address

    def _read(self, name: str, *arguments: Any) -> Any:
        return self._require_shard().call(name, *arguments)

    def write(self, name: str, *arguments: Any) -> Answer:
        """Call a writing method of the shard."""
        return answer(self._write, name, *arguments)

    def _write(self, name: str, *arguments: Any) -> Any:
        return self._writable().call(name, *arguments)

    def info(self) -> Answer:
        """Id of the process's node, number of documents, and bytes of memory of the process, if the system tells."""

        def info() -> tuple[str, int, int | None]:
            return _this_node(), self._require_shard().index.count(), _resident_bytes()

        return answer(info)

    def freeze(self) -> Answer:
        """Refuse writes until ``thaw``, also if the process dies meanwhile: a file beside the folder says so."""

        def freeze() -> None:
            self._require_shard()
            self._frozen_file.touch()

        return answer(freeze)

    def thaw(self) -> Answer:
        """Allow writes again."""

        def thaw() -> None:
            with self._opening:
                if self._read_from is not None:
                    self._read_from.close()
                    self._read_from = None
            self._frozen_file.unlink(missing_ok=True)

        return answer(thaw)

    # Resharding

    def settings(self) -> Answer:
        """See ``ShardSource.settings``."""
        return answer(lambda: self._source().settings())

    def send_page(self, first: int, n_shards: int) -> list[Any]:
        """Documents of this shard, from the place ``first`` on, for each of ``n_shards`` new shards.

        Returns:
            An answer with the place of the next page and the number of documents for each shard; then a page for each
            shard. Ray keeps them apart, so that each goes only to where it is needed.
        """

        def read() -> tuple[int | None, list[Page]]:
            page, following = self._source().page(first)
            return following, page.split(n_shards)

        read_answer = answer(read)
        if read_answer.error is not None:
            return [read_answer, *[None] * n_shards]
        following, pages = read_answer.value
        return [Answer((following, [len(page.ids) for page in pages])), *pages]

    def begin_copy(self, settings: ShardSettings) -> Answer:
        """Begin to make this shard from pages. See ``ShardTarget``."""

        def begin() -> None:
            self._target = ShardTarget(self._plan.folder, settings)

        return answer(begin)

    def take_page(self, page: Page) -> Answer:
        """Add the documents of a page."""
        return answer(lambda: self._require_target().add(page))

    def finish_copy(self) -> Answer:
        """Make this shard an index, which is opened as any other from now on."""

        def finish() -> None:
            self._require_target().finish()
            self._target = None

        return answer(finish)

    def _source(self) -> ShardSource:
        with self._opening:
            if self._read_from is None:
                self._read_from = ShardSource(self._plan.folder)
            return self._read_from

    def _require_target(self) -> ShardTarget:
        if self._target is None:
            raise StorageError("the process of a new shard died while it was made: reshard again")
        return self._target

    def close(self, removes_folder: bool) -> Answer:
        """Close the index for good, and remove its folder if that is wanted."""

        def close() -> None:
            with self._opening:
                self._is_closed = True
                if self._lines is not None:
                    self._lines.close()
                if self._shard is not None:
                    self._shard.close()
                if self._read_from is not None:
                    self._read_from.close()
                if removes_folder:
                    shutil.rmtree(self._plan.folder, ignore_errors=True)
                    self._frozen_file.unlink(missing_ok=True)

        return answer(close)

    @property
    def _frozen_file(self) -> Path:
        folder = self._plan.folder
        return folder.with_name(f"{folder.name}.frozen")

    def _writable(self) -> Shard:
        shard = self._require_shard()
        if self._frozen_file.exists():
            raise IndexLockedError("the index is being resharded: write again when that is done")
        return shard

    def _require_shard(self) -> Shard:
        with self._opening:
            if self._is_closed:
                raise IndexClosedError("this process of a shard was told to close: open the sharded index again")
            if self._shard is None:
                self._shard = self._plan.shard_class(self._open())
                self._lines = LineServer(_address_of_this_node(), self._read)
            return self._shard

    def _open(self) -> MuveraIndex:
        plan = self._plan
        on_device: dict[str, Any] = {"device": plan.device, "device_memory": plan.device_memory}
        encoder = made_encoder(plan.encoder)
        if plan.role == "replica":
            return MuveraIndex.open(plan.folder, encoder, read_only=True, refresh_interval=0, **on_device)
        is_first = not _was_started_again()
        if is_first:
            self._frozen_file.unlink(missing_ok=True)  # a resharding was interrupted together with the whole index
        # A process that takes another one's place never makes an index: the folder may only not be mounted.
        if is_first and plan.settings is not None:
            return MuveraIndex.create(plan.folder, encoder, **plan.settings, **on_device)
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                index = MuveraIndex.open(plan.folder, encoder, **on_device)
            except IndexLockedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_LOCK_PAUSE)
            else:
                if is_first and plan.removes_leftovers:
                    generation = plan.folder.parent
                    remove_generations(generation.parent, keep=int(generation.name.rpartition("-")[2]))
                return index


def made_encoder(source: EncoderSource) -> TokenEncoder | None:
    """The encoder, made in this process if the source is a function or a class."""
    if isinstance(source, type) or (callable(source) and not hasattr(source, "encode_documents")):
        return source()
    return source  # type: ignore[return-value]  # TypeGuard cannot express "has a method"


def actor_class() -> Any:
    """The class of Ray's actors."""
    return require_ray().remote(concurrency_groups=CONCURRENCY, max_restarts=-1, num_cpus=0)(ShardMember)


def _this_node() -> str:
    node: str = require_ray().get_runtime_context().get_node_id()
    return node


def _address_of_this_node() -> str:
    """The address that other nodes reach this one by, as Ray does."""
    node = _this_node()
    return next(str(each["NodeManagerAddress"]) for each in require_ray().nodes() if each["NodeID"] == node)


def _was_started_again() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray itself uses what it deprecates
        return bool(require_ray().get_runtime_context().was_current_actor_reconstructed)


def _resident_bytes() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
