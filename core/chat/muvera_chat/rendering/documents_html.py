"""The HTML of the list of documents, and of what is being done with uploads."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from muvera_chat.documents import ListedFile, Progress
from muvera_core.validation import counted

_SHOWN = 200
_STAGES = {
    "saving": "saving",
    "waiting": "waiting for others",
    "reading": "reading",
    "indexing": "indexing",
    "learning": "learning what scores mean",
}


def files_html(files: Sequence[ListedFile], n_passages: int) -> str:
    """The files with the number of their passages."""
    if not files:
        total = f"{counted(n_passages, 'passage')}." if n_passages else "No documents yet. Drop some files above."
        return f'<p class="mv-note">{total}</p>'
    rows = "".join(
        f'<li title="{escape(file.path)}"><span class="mv-path">{escape(file.name)}</span>'
        f'<span class="mv-place">{counted(file.n_passages, "passage")}</span></li>'
        for file in files[:_SHOWN]
    )
    more = f"<li>… and {len(files) - _SHOWN} more</li>" if len(files) > _SHOWN else ""
    summary = f"{counted(len(files), 'file')}, {counted(n_passages, 'passage')}"
    return f'<p class="mv-note">{summary}</p><ul class="mv-files">{rows}{more}</ul>'


def progress_html(reports: Sequence[Progress]) -> str:
    """A row for each file that is being added."""
    return f'<ul class="mv-files mv-adding" role="status">{"".join(map(_row, reports))}</ul>' if reports else ""


def _row(report: Progress) -> str:
    if report.is_over:
        said = escape(report.said)
        bar = ""
    else:
        count = "" if not report.total else f" {report.done} of {report.total}"
        said = _STAGES[report.stage] + count + " …"
        value = f' value="{report.done}" max="{report.total}"' if report.total else ""
        bar = f"<progress{value}></progress>"
    return (
        f'<li class="mv-{report.stage}"><span class="mv-path">{escape(report.name)}</span>'
        f'<span class="mv-place">{said}</span>{bar}</li>'
    )
