"""Text that the encoder cannot read is reported once for documents and once for questions."""

from __future__ import annotations

import pytest
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.retrievers.muvera import MuveraRetriever, MuveraVectorStore

from muvera_core import MuveraIndex
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import UnknownTextWarning

ARABIC = "أين تقع عاصمة فرنسا؟"


def test_a_text_in_another_script_is_reported_with_the_remedy() -> None:
    with MuveraIndex.create(None, BundledEncoder()) as index:
        store = MuveraVectorStore(index)
        with pytest.warns(UnknownTextWarning, match="document 'arabic' .* MultilingualEncoder") as added:
            store.add([TextNode(id_="arabic", text=ARABIC), TextNode(id_="again", text=ARABIC)])
        with pytest.warns(UnknownTextWarning, match=r"the question .*muvera-core\[multilingual\]") as asked:
            store.query(VectorStoreQuery(query_str=ARABIC))
        store.add([TextNode(text=ARABIC)])  # a warning would fail the test
        MuveraRetriever(index).retrieve(ARABIC)
    assert len(added) == len(asked) == 1
