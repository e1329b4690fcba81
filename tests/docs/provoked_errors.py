"""Makes each error of docs/troubleshooting.md really occur.

Each function is called in an empty folder, and raises the error or gives the warning. Its name is the anchor of the
page's section, with underscores.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from muvera_core import MuveraIndex, RemoteMuveraIndex, sync_files
from muvera_core.encoders import BundledEncoder, CallableEncoder

OWL = ["Owls hunt at night."]


def the_folder_holds_no_index() -> None:
    MuveraIndex.open("notes.muvera")


def the_folder_is_in_use() -> None:
    _notes()
    MuveraIndex.create("notes.muvera")


def another_process_writes_to_the_index() -> None:
    _notes()
    with MuveraIndex.open("notes.muvera"):
        MuveraIndex.open("notes.muvera")


def the_index_is_closed() -> None:
    with MuveraIndex.create(None) as index:
        index.add(OWL)
    index.search("owl")


def the_index_is_open_for_reading() -> None:
    _notes()
    with MuveraIndex.open("notes.muvera", read_only=True) as index:
        index.add(OWL)


def the_encoder_is_another_one() -> None:
    _notes()
    MuveraIndex.open("notes.muvera", _other_encoder())


def the_index_needs_the_encoder_it_was_made_with() -> None:
    MuveraIndex.create("notes.muvera", _other_encoder()).close()
    MuveraIndex.open("notes.muvera")


def files_of_the_index_are_damaged() -> None:
    _notes()
    path = Path("notes.muvera/tokens-0.bin")
    path.write_bytes(path.read_bytes()[:100])
    MuveraIndex.open("notes.muvera")


def the_files_are_gone() -> None:
    folder = Path("notes")
    folder.mkdir()
    with MuveraIndex.create("notes.muvera") as index:
        for number in range(4):
            (folder / f"{number}.md").write_text(f"Note {number} is about owls.")
        sync_files(index, [folder])
        for file in folder.iterdir():
            file.unlink()
        sync_files(index, [folder])


def there_are_no_files_to_index() -> None:
    Path("a.pdf").write_bytes(b"%PDF-1.4 and nothing more")
    with MuveraIndex.create(None) as index:
        sync_files(index, ["a.pdf"])


def the_index_was_used_in_a_forked_process() -> None:
    with MuveraIndex.create("notes.muvera") as index, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of the tests, which the child does not need
        _raised_in_child(lambda: index.add(OWL))


def the_vectors_have_another_width() -> None:
    with MuveraIndex.create(None) as index:
        index.add_embeddings([np.ones((3, 64), dtype=np.float32)])


def there_are_not_as_many_ids_as_texts() -> None:
    with MuveraIndex.create(None) as index:
        index.add(OWL, ids=["owl", "ant"])


def ids_occur_twice() -> None:
    with MuveraIndex.create(None) as index:
        index.add(["Owls hunt.", "Ants dig."], ids=["a", "a"])


def the_filter_has_an_unknown_operator() -> None:
    with MuveraIndex.create(None) as index:
        index.search("owl", filter={"year": {"$above": 2020}})


def the_metadata_cannot_be_stored() -> None:
    with MuveraIndex.create(None) as index:
        index.add(OWL, metadatas=[{"author": object()}])


def the_smallest_score_is_out_of_range() -> None:
    with MuveraIndex.create(None) as index:
        index.search("owl", min_score=70)


def langchain_does_not_know_the_name() -> None:
    from langchain_muvera import MuveraRetriever

    misspelt: dict[str, Any] = {"filters": {"year": 2020}}
    with MuveraIndex.create(None) as index:
        MuveraRetriever(index=index, **misspelt)


def langchain_embeddings_are_refused() -> None:
    from langchain_core.embeddings import DeterministicFakeEmbedding

    from langchain_muvera import MuveraVectorStore

    MuveraVectorStore.from_texts(OWL, DeterministicFakeEmbedding(size=8))


def a_package_is_missing() -> None:
    scipy = ("scipy", "scipy.cluster", "scipy.cluster.hierarchy")
    with _without(*scipy), MuveraIndex.create(None, pool_factor=2) as index:
        index.add(OWL)


def the_gpu_cannot_be_used() -> None:
    with _without("cupy"):
        MuveraIndex.create(None, device="cuda")


def the_encoder_cannot_use_the_gpu() -> None:
    with mock.patch("onnxruntime.get_available_providers", return_value=["CPUExecutionProvider"]):
        BundledEncoder(device="cuda")


def the_models_folder_does_not_exist() -> None:
    from muvera_core.encoders import load_encoder

    load_encoder("models/colbert")


def the_service_cannot_be_reached() -> None:
    with RemoteMuveraIndex("http://127.0.0.1:1", timeout=2, retries=0) as index:
        index.search("owl")


def the_service_wants_a_token() -> None:
    from local_service import running

    from muvera_core.serving import ServiceSettings, create_app

    with (
        MuveraIndex.create(None) as notes,
        running(create_app(notes, ServiceSettings(tokens=["secret"]))) as address,
        RemoteMuveraIndex(address) as index,
    ):
        index.search("owl")


def a_host_that_others_reach_needs_a_token() -> None:
    _notes()
    _command("serve", "notes.muvera", "--host", "0.0.0.0")


def texts_without_visible_characters_were_skipped() -> None:
    with MuveraIndex.create(None) as index:
        index.add(["Owls hunt at night.", " \n"], ids=["owl", "page 2"])


def a_text_is_too_long() -> None:
    with MuveraIndex.create(None, BundledEncoder(max_document_tokens=64)) as index:
        index.add(["Owls hunt at night. " * 100], ids=["owls"])


def a_text_cannot_be_read() -> None:
    with MuveraIndex.create(None) as index:
        index.add(["猫头鹰在夜间捕猎。"])


def there_is_nothing_to_optimize() -> None:
    with MuveraIndex.create(None) as index:
        index.add([f"Bird number {i} sings." for i in range(20)])
        index.optimize()


def _notes() -> None:
    with MuveraIndex.create("notes.muvera") as index:
        index.add(OWL, ids=["owl"])


def _other_encoder() -> CallableEncoder:
    def encode(texts: list[str]) -> list[np.ndarray]:
        return [np.ones((2, 8), dtype=np.float32) for _ in texts]

    return CallableEncoder(encode, encode, dimension=8, name="my model")


def _without(*packages: str) -> AbstractContextManager[object]:
    """Packages that cannot be imported, as on a machine that does not have them."""
    return mock.patch.dict(sys.modules, dict.fromkeys(packages))


def _raised_in_child(call: Callable[[], object]) -> None:
    """Raises here what a call raises in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            call()
        except Exception as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        raise PrintedError(pipe.read())


def _command(*arguments: str) -> None:
    """Raises what a command prints when it fails."""
    from click.testing import CliRunner

    from muvera_core.cli import main

    raise PrintedError(CliRunner().invoke(main, arguments).output.strip())


class PrintedError(Exception):
    """What a user sees, where no exception reaches the caller."""


def occurring(call: Callable[[], None]) -> str:
    """What a user sees: the name of the error or warning, and its message."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        try:
            call()
        except PrintedError as shown:
            return str(shown)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "\n".join(f"{each.category.__name__}: {each.message}" for each in given)


_TOOLS = {"occurring"}
PROVOKERS: dict[str, Callable[[], None]] = {
    name.replace("_", "-"): call
    for name, call in list(globals().items())
    if getattr(call, "__module__", "") == __name__ and not name.startswith("_") and name.islower()
    if name not in _TOOLS
}
"""By the anchor of the page's section."""
