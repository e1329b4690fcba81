"""Documents of other systems: what RAGatouille, Chroma, LlamaIndex and LangChain have saved, read without any of them.

path → ``find_source`` → a reader → documents, and records that cannot be used → ``import_documents`` → an index

Texts, ids and metadata are taken over. Vectors are not, because another model made them. Nothing is unpickled.
"""

from __future__ import annotations

from muvera_core.imports.chroma import read_chroma
from muvera_core.imports.langchain import read_langchain
from muvera_core.imports.llama_index import read_llama_index
from muvera_core.imports.ragatouille import read_ragatouille
from muvera_core.imports.records import BadRecord, Imported
from muvera_core.imports.sources import FORMATS, Source, SourceFormat, find_source, read_source
from muvera_core.imports.writing import ImportReport, import_documents

__all__ = [
    "FORMATS",
    "BadRecord",
    "ImportReport",
    "Imported",
    "Source",
    "SourceFormat",
    "find_source",
    "import_documents",
    "read_chroma",
    "read_langchain",
    "read_llama_index",
    "read_ragatouille",
    "read_source",
]
