"""The locks of an open index: what each guards, who holds it, and in which order they are taken."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(frozen=True, eq=False)
class IndexLocks:
    """Four reentrant locks. A thread that takes several takes them in this order: writing, change, state, words.

    Attributes:
        writing: admits one writer. ``add``, ``delete``, ``compact``, ``optimize``, ``refresh``, ``copy_to`` and
            ``close`` hold it from beginning to end, encoding included. Searches do not wait for it.
        change: admits one database transaction that writes. Held while a ``Change`` is filled and committed, and while
            free pages are released. A read that commits have disturbed several times holds it, too, so that the next
            commit waits. A fork waits for it, so that no child inherits half a transaction.
        state: guards what a search sees: the current snapshot, the current stage one, and the connection for reading.
            It is held for one short statement at a time, for one query's graph search, while a search takes a snapshot
            and a view of stage one, and by the writer while a commit becomes visible. All other work is done without
            it: parsing, checksums, encoding, ranking. A fork waits for it, too.
        words: guards the connection for lexical searches, and what they keep. It is held while one term of a question
            is looked up, which takes milliseconds for a common word. A fork waits for it, too.

    There are two more locks. The lock file in the index's folder admits one writing process (``folder_lock``). Updates
    of the data on a GPU take a lock of the package ``cuda``, after all others.
    """

    writing: threading.RLock = field(default_factory=threading.RLock)
    change: threading.RLock = field(default_factory=threading.RLock)
    state: threading.RLock = field(default_factory=threading.RLock)
    words: threading.RLock = field(default_factory=threading.RLock)
