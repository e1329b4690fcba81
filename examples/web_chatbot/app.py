"""A chatbot in the browser, put together in Python: `python app.py [PATH]...`.

Without a path it answers from 300 Wikipedia passages. It runs offline, and without a language model it quotes the
passages. To let a model write the answers, pass any chat model of LangChain to ``Answerer``:

    from langchain.chat_models import init_chat_model
    answerer = Answerer(index, init_chat_model("PROVIDER:MODEL"))
"""

from __future__ import annotations

import argparse
from pathlib import Path

from muvera_chat import Answerer, AnsweringSettings, Library, Uploads, make_page, serve
from muvera_core import MuveraIndex, sync_files
from muvera_core.corpus import READABLE
from muvera_core.evaluation.collections import read_beir

COLLECTION = Path(__file__).parents[1] / "data" / "nq-gold"
N_PASSAGES = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="files and folders to answer from")
    parser.add_argument("--index", type=Path, default=Path("web_chatbot.muvera"), help="folder of the index")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on; 0 takes a free one")
    arguments = parser.parse_args()
    with MuveraIndex.open_or_create(arguments.index) as index:
        if arguments.paths:
            print(sync_files(index, arguments.paths))
        else:
            add_wikipedia(index)
        uploads = Uploads(arguments.index.with_name(f"{arguments.index.stem}-uploads").absolute(), READABLE)
        answerer = Answerer(index, settings=AnsweringSettings(n_sources=4))
        page = make_page(answerer, Library(index, uploads), title="Ask Wikipedia")
        serve(page, port=arguments.port, on_ready=lambda url: print(f"Open {url}; Ctrl-C ends it.", flush=True))


def add_wikipedia(index: MuveraIndex) -> None:
    """Add passages, unless they are there, and learn what scores say about relevance."""
    collection = read_beir(COLLECTION)
    titles = collection.titles[:N_PASSAGES]
    metadatas = [{"path": title} for title in titles]
    index.add(collection.texts[:N_PASSAGES], collection.ids[:N_PASSAGES], metadatas, show_progress=True)
    if not index.calibration:
        index.calibrate()


if __name__ == "__main__":
    main()
