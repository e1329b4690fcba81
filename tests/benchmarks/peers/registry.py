"""The systems that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from peers.protocol import System

OURS = "muvera-core"


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        label: the row's name, also of its file of results.
        package: the distribution that it needs.
        module: the file in ``systems`` that adapts it.
        settings: the arguments of that file's class ``Adapter``.
        is_exact: whether it scores every document, so that it stands for a scan and not for an index.
    """

    label: str
    package: str
    module: str
    settings: dict[str, Any] = field(default_factory=dict)
    is_exact: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether the row is one of muvera's."""
        return self.package == OURS

    def version(self) -> str | None:
        """The installed version of the package; None if it is missing."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None

    def load(self) -> System:
        """Import the system's file and make its adapter."""
        system: System = import_module(f"peers.systems.{self.module}").Adapter(**self.settings)
        return system


ENTRIES = (
    Entry("exact-numpy", "numpy", "exact_numpy", is_exact=True),
    Entry("muvera", OURS, "ours"),
    Entry("muvera-optimized", OURS, "ours", {"target_recall": 0.95}),
    Entry("muvera-4bit", OURS, "ours", {"token_precision": "4bit"}),
    Entry("muvera-2bit", OURS, "ours", {"token_precision": "2bit"}),
    Entry("tachiom", "tachiom", "tachiom_index"),
    Entry("fast-plaid", "fast-plaid", "fast_plaid_index"),
    Entry("xtr-warp", "xtr-warp-rs", "xtr_warp_index"),
    Entry("colbandit", "colbandit", "colbandit_index"),
    Entry("maxsim-cpu", "maxsim-cpu", "maxsim_cpu_scan", is_exact=True),
    Entry("lateweave", "lateweave", "lateweave_scan", is_exact=True),
    Entry("fastembed-fde", "fastembed", "fastembed_fde"),
    Entry("muvera-python-fde", "muvera-python", "muvera_python_fde"),
    Entry("lancedb", "lancedb", "lancedb_table"),
    Entry("lancedb-refined", "lancedb", "lancedb_table", {"nprobes": 50, "refine_factor": 10}),
    Entry("qdrant-local", "qdrant-client", "qdrant_local", is_exact=True),
)


def entries(labels: Sequence[str] | None = None) -> list[Entry]:
    """The entries with these labels; all of them if None.

    Raises:
        ValueError: there is no such entry.
    """
    if labels is None:
        return list(ENTRIES)
    known = {entry.label: entry for entry in ENTRIES}
    if unknown := [label for label in labels if label not in known]:
        raise ValueError(f"no system is called {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[label] for label in labels]
