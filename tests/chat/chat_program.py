"""Serves a chat from Python, with a model that writes slowly: chat_program.py FOLDER RESPONSE..."""

from __future__ import annotations

import sys
from pathlib import Path

from chat_models import SlowModel

from muvera_chat import Answerer, Library, Uploads, make_page, serve
from muvera_core import MuveraIndex


def main() -> None:
    folder, responses = Path(sys.argv[1]), sys.argv[2:]
    with MuveraIndex.open_or_create(folder / "documents.muvera") as index:
        library = Library(index, Uploads(folder / "documents-uploads", (".md", ".txt")))
        page = make_page(Answerer(index, SlowModel(responses=responses, sleep=0.02, asked=[])), library)
        serve(page, port=0, max_file_bytes=1 << 20, on_ready=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
