"""What the pages show and the tests do not run, with the reason. Everything else is run or parsed.

What is not run is still checked: Python must compile and import names that exist, ``pip`` must name extras that exist,
a script must exist and have the options that it is called with. An entry that fits nothing fails the tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import Requirement

INSTALLS = "installs packages from a package index"
LONG = "takes minutes to hours, and some need collections that are not in the repository"
CLUSTER = "needs a cluster of Ray; tests/distributed runs these calls on one"
TORCH = "needs PyTorch and a model of some 100 MB; tests/models and tests/core run these classes with small ones"
HUB = "downloads a model"
CHAT = "shows a page until it is stopped; tests/chat drives it in a browser"


@dataclass(frozen=True)
class NotRun:
    """One rule of the list.

    Attributes:
        page: pattern of the page's path.
        language: "python" for whole blocks, "bash" for single commands.
        code: regular expression that is searched in the block, or the command.
        reason: why it is not run.
        unless: a requirement with which it is run all the same, because the page's setup makes a small model.
    """

    page: str
    language: str
    code: str
    reason: str
    unless: str = ""

    def fits(self, page: str, language: str, code: str) -> bool:
        return language == self.language and fnmatch(page, self.page) and re.search(self.code, code) is not None


RULES = (
    NotRun("*", "bash", r"^(python -m )?pip install ", INSTALLS),
    NotRun("*", "bash", r"^bash tools/", "installs packages and runs for minutes; it is how CI begins"),
    NotRun("*", "bash", r"\bpython (tests/benchmarks|tests/durability|tools)/\S+\.py", LONG),
    NotRun("*", "bash", r"\bmuvera chat ", CHAT),
    NotRun("*", "bash", r"^python examples/web_chatbot/", CHAT),
    NotRun("docs/chat.md", "python", r"muvera_chat", "needs muvera-chat; tests/models runs it", unless="muvera-chat"),
    NotRun("CONTRIBUTING.md", "bash", r"^\.venv-test/bin/", "runs the tests, and what checks style and types"),
    NotRun("docs/benchmarks.md", "bash", r"^git worktree ", "needs the repository's history"),
    NotRun("docs/encoders.md", "bash", r"^hf download ", HUB),
    NotRun("docs/*.md", "bash", r"^muvera export-onnx models/", TORCH),
    NotRun("docs/encoders.md", "python", r"SentenceTransformerEncoder\(", TORCH, unless="sentence-transformers>=6"),
    NotRun("docs/encoders.md", "python", r"ColBERTEncoder\(", TORCH, unless="colbert-ai"),
    NotRun("docs/searching.md", "python", r"from sentence_transformers import", TORCH),
    NotRun("docs/gpu.md", "python", r'device="cuda"', "needs a GPU; tests/core/test_cuda.py runs these calls on one"),
    NotRun("docs/cluster.md", "python", r".", CLUSTER),
)


def reason_not_to_run(page: str, language: str, code: str) -> str | None:
    """Why a block of Python, or a command of bash, is not run; None if it is."""
    fitting = (rule for rule in RULES if rule.fits(page, language, code))
    return next((rule.reason for rule in fitting if not (rule.unless and is_installed(rule.unless))), None)


def is_installed(requirement: str) -> bool:
    """Whether a package is there, in a version that a requirement admits."""
    wanted = Requirement(requirement)
    try:
        return wanted.specifier.contains(version(wanted.name), prereleases=True)
    except PackageNotFoundError:
        return False
