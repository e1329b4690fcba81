"""Text that the encoder cannot read is reported once for documents and once for questions."""

from __future__ import annotations

import pytest

from langchain_muvera import MuveraVectorStore
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import UnknownTextWarning

ARABIC = "أين تقع عاصمة فرنسا؟"


def test_a_text_in_another_script_is_reported_with_the_remedy() -> None:
    with MuveraVectorStore.from_texts([], encoder=BundledEncoder()) as store:
        with pytest.warns(UnknownTextWarning, match="document 'arabic' .* MultilingualEncoder") as added:
            store.add_texts([ARABIC, ARABIC], ids=["arabic", "again"])
        with pytest.warns(UnknownTextWarning, match=r"the question .*muvera-core\[multilingual\]") as asked:
            store.similarity_search(ARABIC)
        store.add_texts([ARABIC])  # a warning would fail the test
        store.as_retriever().invoke(ARABIC)
    assert len(added) == len(asked) == 1
