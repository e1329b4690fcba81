"""The page: a conversation, and the documents beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from html import escape
from typing import Any

# Gradio reads them when it is imported: nothing is reported, and browsers keep no history of what was asked.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_RUN_HISTORY"] = "False"

import gradio as gr

from muvera_chat.answering import Answerer
from muvera_chat.documents import Library
from muvera_chat.ui.document_events import add_document_events
from muvera_chat.ui.session import Session

# Answers that are made at the same time. Further questions wait.
_AT_A_TIME = 16
_WELCOME = (
    '<p class="mv-welcome">Ask something that your documents answer. Each answer names its passages: open one to see '
    "which of its words matched your question. Point at a word of the question to see what it alone matched.</p>"
)

# What `past` and `current` show of a new conversation.
_NEW = (_WELCOME, "")


def make_page(answerer: Answerer, library: Library, title: str = "Ask your documents") -> gr.Blocks:
    """The page of a chat.

    Args:
        answerer: answers questions.
        library: the documents that it answers from.
        title: the page's title.
    """
    page: gr.Blocks = gr.Blocks(title=title, analytics_enabled=False, delete_cache=(600, 600), fill_width=True)
    with page:
        session = gr.State(Session())
        with gr.Row(elem_id="mv-main"):
            with gr.Column(scale=7, min_width=320, elem_id="mv-left"):
                with gr.Row(elem_id="mv-top"):
                    gr.HTML(_heading(title, answerer), elem_id="mv-head", apply_default_css=False)
                    clear = gr.Button("New conversation", size="sm", scale=0, min_width=150, elem_id="mv-new")
                with gr.Column(elem_id="mv-conversation"):
                    past = gr.HTML(_WELCOME, elem_id="mv-past", apply_default_css=False)
                    current = gr.HTML("", elem_id="mv-current", apply_default_css=False)
                with gr.Row(elem_id="mv-asking"):
                    box = gr.Textbox(
                        placeholder="Ask a question",
                        label="Question",
                        show_label=False,
                        container=False,
                        lines=1,
                        max_lines=5,
                        max_length=answerer.settings.max_question,
                        autofocus=True,
                        scale=8,
                        elem_id="mv-box",
                    )
                    send = gr.Button("Ask", variant="primary", scale=0, min_width=90, elem_id="mv-send")
                    stop = gr.Button("Stop", scale=0, min_width=80, elem_id="mv-stop")
            with gr.Column(scale=3, min_width=280, elem_id="mv-documents"):
                add_document_events(page, library)

        def ask(question: str, own: Session) -> Iterator[tuple[Any, ...]]:
            conversation = own.shown
            # The box is emptied once: the next question may be typed meanwhile.
            others: tuple[Any, Any] = ("", "".join(conversation.turns))
            if question.strip():
                for shown in conversation.ask(answerer, question.strip()):
                    yield *others, shown
                    others = (gr.skip(), gr.skip())
            if conversation.is_abandoned and own.shown.is_new:
                # The browser may have shown the last piece after `start_again` had emptied the page.
                yield gr.skip(), *_NEW
            else:
                yield gr.skip(), gr.skip(), gr.skip()

        def start_again(own: Session) -> tuple[str, str]:
            own.start_again()
            return _NEW

        def stop_answer(own: Session) -> None:
            own.shown.is_stopping = True

        gr.on(
            [box.submit, send.click],
            ask,
            [box, session],
            [box, past, current],
            # The session refuses a question while it answers another. Gradio would also refuse the first one of a new
            # conversation as long as the answer before it ends, and its `cancels` can hit the next question instead.
            trigger_mode="multiple",
            concurrency_limit=_AT_A_TIME,
            show_progress="hidden",
            api_visibility="private",
        )
        own_event: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        stop.click(stop_answer, [session], None, **own_event)
        clear.click(start_again, [session], [past, current], **own_event)
    return page


def _heading(title: str, answerer: Answerer) -> str:
    """The page's title, and who writes the answers."""
    model = answerer.model
    if model is None:
        writer = "No language model: answers are sentences quoted from the documents."
    else:
        name = getattr(model, "model_name", None) or getattr(model, "model", None) or type(model).__name__
        writer = f"Answers are written by {name} from passages of the documents. They can be wrong."
    return f'<h1>{escape(title)}</h1><p class="mv-note">{escape(writer)}</p>'
