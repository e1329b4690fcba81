"""``muvera chat`` as users run it, without a browser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from running_chat import MUVERA, PATIENCE, running

pytest.importorskip("muvera_chat", reason="needs muvera-core[chat]")

from muvera_chat.models import load_model
from muvera_chat.opening import index_folder, open_chat
from muvera_core import MuveraIndex
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import IndexLockedError, InvalidInputError, MissingExtraError
from muvera_core.validation import counted

EXAMPLE = Path(__file__).parents[2] / "examples" / "web_chatbot" / "app.py"


def fail(*arguments: str | Path) -> str:
    """What the command prints when it fails."""
    command = [sys.executable, "-c", MUVERA, "chat", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode in (1, 2), result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def test_mistakes_are_explained(tmp_path: Path) -> None:
    assert "does not exist" in fail(tmp_path / "nowhere")
    assert "--base-url is for a --model" in fail("--base-url", "http://127.0.0.1:1")
    assert "--model must be PROVIDER:MODEL" in fail("--model", "llama")


@pytest.mark.parametrize("name", ["llama", ":llama", "ollama:", ""])
def test_a_model_needs_its_provider(name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"PROVIDER:MODEL, such as ollama:llama3\.2"):
        load_model(name)


def test_a_model_that_cannot_be_made_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langchain.chat_models", reason="needs langchain")
    with pytest.raises(InvalidInputError, match="nobody:x cannot be used"):
        load_model("nobody:x")
    with pytest.raises(MissingExtraError, match="needs another package"):
        load_model("fireworks:x")
    pytest.importorskip("langchain_openai", reason="needs langchain-openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InvalidInputError, match=r"openai:x cannot be used.*OPENAI_API_KEY"):
        load_model("openai:x")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert load_model("openai:x", base_url="http://127.0.0.1:1").model_name == "x"  # type: ignore[attr-defined]


def test_without_langchain_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)
    with pytest.raises(MissingExtraError, match="pip install langchain langchain-google-genai"):
        load_model("google_genai:x")


def test_the_index_is_beside_the_documents(tmp_path: Path, encoder: BundledEncoder) -> None:
    notes, index = tmp_path / "notes", tmp_path / "old.muvera"
    notes.mkdir()
    (tmp_path / "faq.md").touch()
    MuveraIndex.create(index, encoder).close()
    assert index_folder([notes], None) == (tmp_path / "notes.muvera", [notes])
    assert index_folder([tmp_path / "faq.md"], None)[0] == tmp_path / "faq.muvera"
    assert index_folder([], None) == (Path("documents.muvera"), [])
    assert index_folder([index], None) == (index, [])
    assert index_folder([notes], index) == (index, [notes])
    assert index_folder([Path()], None)[0].name == f"{Path.cwd().name}.muvera"
    for paths, folder in (([index, notes], None), ([index], tmp_path / "new")):
        with pytest.raises(InvalidInputError, match="is an index: give it as the only PATH"):
            index_folder(paths, folder)


def test_files_are_indexed_and_the_index_is_remembered(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "owls.md").write_text("Barn owls hunt at night.")
    said: list[str] = []
    with open_chat([notes], progress_bar=no_bar, say=said.append) as opened:
        assert counted(len(opened.index), "document") == "1 document"
        with pytest.raises(IndexLockedError, match="--read-only"), open_chat([notes], progress_bar=no_bar, say=print):
            pass
    assert said[0].startswith("1 added in ")
    with open_chat([tmp_path / "notes.muvera"], read_only=True, progress_bar=no_bar, say=print) as opened:
        assert len(opened.index) == 1
        assert not opened.library.can_change
    with (
        pytest.raises(InvalidInputError, match="--read-only indexes nothing"),
        open_chat([notes], read_only=True, progress_bar=no_bar, say=print),
    ):
        pass


def no_bar(**_: object) -> object:
    from tqdm import tqdm

    return tqdm(disable=True)


def test_the_example_serves_and_stops(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "owls.md").write_text("Barn owls hunt at night.")
    with running(EXAMPLE, notes, "--port", "0", folder=tmp_path) as chat:
        page = httpx.get(chat.url, timeout=PATIENCE)
        assert "Ask Wikipedia" in page.text
        assert chat.stop() == 0
        assert "1 added" in chat.output


def test_a_password_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUVERA_CHAT_PASSWORD", "open sesame")
    with (
        running("-c", MUVERA, "chat", "--port", "0", folder=tmp_path) as chat,
        httpx.Client(base_url=chat.url, timeout=PATIENCE) as client,
    ):
        assert client.get("/config").status_code == 401
        assert client.post("/login", data={"username": "any", "password": "guess"}).status_code == 400
        assert client.post("/login", data={"username": "any", "password": "open sesame"}).status_code == 200
        assert client.get("/config").status_code == 200


def test_doctests() -> None:
    import doctest

    import muvera_chat.answering.answerer
    import muvera_chat.answering.citations
    import muvera_chat.answering.following_up
    import muvera_chat.answering.quoting
    import muvera_chat.documents.uploads
    import muvera_chat.opening

    modules = (
        muvera_chat.answering.answerer,
        muvera_chat.answering.citations,
        muvera_chat.answering.following_up,
        muvera_chat.answering.quoting,
        muvera_chat.documents.uploads,
        muvera_chat.opening,
    )
    for module in modules:
        result = doctest.testmod(module)
        assert result.attempted > 0, module
        assert result.failed == 0, module
