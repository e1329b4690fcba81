"""The documents' part of the page: files are dropped, watched while they are indexed, listed and removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr

from muvera_chat.documents import Library, Progress
from muvera_chat.rendering import files_html, progress_html
from muvera_core.errors import MuveraError

_PRIVATE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def add_document_events(page: gr.Blocks, library: Library) -> None:
    """Add the documents' part to a page that is being made."""
    gr.HTML("<h2>Documents</h2>", elem_id="mv-documents-head")
    if library.can_change:
        dropped = gr.File(file_count="multiple", label="Add files", show_label=False, height=130, elem_id="mv-drop")
        adding = gr.HTML("", elem_id="mv-adding", apply_default_css=False)
    listed = gr.HTML("", elem_id="mv-files", apply_default_css=False)
    page.load(lambda: _listed(library), None, [listed], **_PRIVATE)
    if not library.can_change:
        return
    with gr.Accordion("Remove uploaded files", open=False, elem_id="mv-removing"):
        chosen = gr.Dropdown([], multiselect=True, show_label=False, label="Uploaded files", elem_id="mv-chosen")
        with gr.Row():
            remove = gr.Button("Remove", size="sm", min_width=80, elem_id="mv-remove")
            remove_all = gr.Button("Remove all", size="sm", min_width=80, variant="stop", elem_id="mv-remove-all")

    def add(paths: list[str] | None) -> Iterator[tuple[Any, ...]]:
        reports: list[Progress] = []
        for reports in _added(library, [Path(path) for path in paths or []]):
            yield None, progress_html(reports), gr.skip(), gr.skip()
        problems = [report for report in reports if report.stage == "unusable"]
        yield None, progress_html(problems), _listed(library), _choices(library)

    def remove_chosen(names: list[str]) -> tuple[Any, ...]:
        for name in names or []:
            library.remove(name)
        return "", _listed(library), _choices(library)

    def remove_uploads() -> tuple[Any, ...]:
        library.remove_all()
        return "", _listed(library), _choices(library)

    outputs = [adding, listed, chosen]
    dropped.upload(add, [dropped], [dropped, *outputs], concurrency_limit=4, **_PRIVATE)
    remove.click(remove_chosen, [chosen], outputs, **_PRIVATE)
    remove_all.click(remove_uploads, None, outputs, **_PRIVATE)
    page.load(lambda: _choices(library), None, [chosen], **_PRIVATE)
    chosen.focus(lambda: _choices(library), None, [chosen], **_PRIVATE)


def _added(library: Library, paths: list[Path]) -> Iterator[list[Progress]]:
    """Add files one after the other. Yields how far all of them are."""
    reports = [Progress(path.name, "waiting") for path in paths]
    yield reports
    for i, path in enumerate(paths):
        for report in library.upload(path, path.name):
            reports[i] = report
            yield reports
        with suppress(OSError):  # Gradio's own copy is not needed any more
            path.unlink()


def _listed(library: Library) -> str:
    try:
        return files_html(library.files(), len(library.index))
    except MuveraError as error:
        return progress_html([Progress("documents", "unusable", said=str(error))])


def _choices(library: Library) -> Any:
    return gr.update(choices=library.uploaded(), value=[])
