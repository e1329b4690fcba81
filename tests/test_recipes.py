"""The recipes and the terminal chatbots run as a user runs them: each in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
RECIPES = EXAMPLES / "recipes"
# What other tests run, because they need a model, a database or another language.
ELSEWHERE = {
    "encoding_service",
    "lancedb_stage_one",
    "onnx_model",
    "other_languages",
    "page_images",
    "qdrant_stage_one",
    "sentence_transformers_model",
}
# For each recipe the packages that it needs, and lines that it prints.
PRINTED: dict[str, tuple[list[str], list[str]]] = {
    "agent_langchain": (
        ["langchain_core"],
        ["ai: {'query': 'What is to be done about ERR-4077?'}", "ai: The manual says: The valve shows ERR-4077"],
    ),
    "agent_llama_index": (["llama_index.core"], ["agent: The manual says: The valve shows ERR-4077"]),
    "evaluate": ([], ["30 questions, 200 passages", "late ", "lexical ", "hybrid ", "worst question: "]),
    "migrate": (
        [],
        ["ragatouille: 3 added", "again: 0 added, 0 replaced, 3 unchanged", "birds#2 {'document': 'birds'"],
    ),
    "nothing_relevant": ([], ["probability 1.00: who", "  nq-0", "probability 0.00: how", "  nothing relevant"]),
    "own_model": ([], ["ant: Leafcutter ants", "colonys → colonies"]),
    "rerank_hits": (
        [],
        ["existing search: bank-3 bank-2", "reranked by an index: bank-2", "reranked without one: bank-2"],
    ),
    "rerank_langchain": (["langchain_core"], ["retriever: comparison river rates", "reranked: river We sat"]),
    "rerank_llama_index": (["llama_index.core"], ["retriever: comparison river rates", "reranked: river 0."]),
    "tenants": (
        ["langchain_core"],
        ["ada: ada/0 ada/1", "4 words: bob/1", "LangChain: bob/0 bob/1", "forgot 2 notes", "ada.muvera bob.muvera"],
    ),
    "web_service": (
        ["fastapi", "httpx", "uvicorn"],
        ["before: ['ant']", "after: ['owl', 'ant']", "eight at once: {'owl'}", "too many: 422"],
    ),
}
QUESTIONS = "Which bird is active after dark?\nHow does its flight sound?\nWhat is {x}?\n/sources\n/new\n/sources\n"


def run(script: Path, *arguments: str | Path, typed: str = "", status: int = 0) -> str:
    """What a script prints to standard output, and to standard error if it fails as it should."""
    # llama-index-core's agents and pydantic warn of each other.
    warnings = "default" if script.stem == "agent_llama_index" else "error"
    result = subprocess.run(
        [sys.executable, "-W", warnings, str(script), *map(str, arguments)],
        input=typed,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == status, result.stderr
    return result.stdout if status == 0 else result.stderr


def test_every_recipe_is_run_and_listed() -> None:
    recipes = {path.stem for path in RECIPES.glob("*.py")}
    assert recipes == {*PRINTED, *ELSEWHERE}
    listed = (EXAMPLES / "README.md").read_text()
    assert [name for name in recipes if f"recipes/{name}.py" not in listed] == []
    assert [path.name for path in EXAMPLES.glob("*.py") if path.name not in listed] == []


@pytest.mark.parametrize("name", sorted(PRINTED))
def test_a_recipe_does_what_it_says(name: str) -> None:
    packages, expected = PRINTED[name]
    for package in packages:
        pytest.importorskip(package, reason=f"needs {package}")
    printed = run(RECIPES / f"{name}.py")
    assert [line for line in expected if line not in printed] == []


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder of documents."""
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "owls.md").write_text("# Owls\n\nOwls hunt at night. Their flight makes almost no sound.\n")
    (folder / "bread.txt").write_text("Rye bread keeps for longer than white bread.\n")
    return folder


@pytest.fixture(params=["langchain", "llama_index"])
def chatbot(request: pytest.FixtureRequest) -> Path:
    pytest.importorskip(
        f"{request.param.replace('langchain', 'langchain_core').replace('llama_index', 'llama_index.core')}"
    )
    return EXAMPLES / f"chat_{request.param}.py"


def test_a_chatbot_answers_follows_up_and_names_its_sources(chatbot: Path, notes: Path, tmp_path: Path) -> None:
    index = tmp_path / "notes.muvera"
    _, first, follow_up, braces, sources, forgotten = split(
        run(chatbot, notes, "--index", index, typed=QUESTIONS + "\n")
    )
    assert first.startswith("“Owls hunt at night.” [1]")
    assert follow_up.startswith("“Their flight makes almost no sound.” [1]")  # "its" is the owl's
    assert braces  # an answer, and no error about a template
    assert "[1] " in sources
    assert "notes/owls.md" in sources
    assert "owls.md" not in forgotten
    again = run(chatbot, notes, "--index", index, typed="Which bread lasts?")
    assert "2 unchanged" in again
    assert "“Rye bread keeps for longer than white bread.” [1]" in again


def split(printed: str) -> list[str]:
    """What is printed before the first question, and after each line that was typed."""
    parts: list[list[str]] = [[]]
    for line in printed.splitlines():
        if line.startswith("> ") and line != "> /new":
            parts.append([])
        else:
            parts[-1].append(line)
    return ["\n".join(part) for part in parts]


def test_a_chatbot_talks_about_wikipedia_by_default(chatbot: Path) -> None:
    printed = run(chatbot, "--passages", "20", typed="who got the first nobel prize in physics\n/sources")
    assert "Indexing 20 Wikipedia passages." in printed
    assert "Wilhelm Conrad Röntgen" in printed.split("/sources")[0]
    assert "[1] List of Nobel laureates in Physics: " in printed


@pytest.mark.parametrize(
    ("name", "module", "model", "expected"),
    [
        ("chat_langchain.py", "langchain_ollama", "ollama:llama3.2", "pip install langchain"),
        ("chat_langchain.py", "", "nowhere:x", "--model"),
        (
            "chat_llama_index.py",
            "llama_index.llms.ollama",
            "ollama:llama3.2",
            "--model ollama:llama3.2 needs another package: pip install llama-index-llms-ollama",
        ),
        ("chat_llama_index.py", "", "nowhere:x", "--model must be PROVIDER:MODEL with a provider of anthropic, ollama"),
    ],
)
def test_a_model_that_cannot_be_used_ends_the_program_with_advice(
    name: str, module: str, model: str, expected: str
) -> None:
    pytest.importorskip("langchain_core" if "langchain" in name else "llama_index.core")
    if module and is_installed(module):
        pytest.skip(f"{module} is installed")
    message = run(EXAMPLES / name, "--model", model, status=1)
    assert expected in message
    assert "Traceback" not in message


def is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False
