from __future__ import annotations

import re
from pathlib import Path

import pytest

import langchain_muvera

README = Path(__file__).parents[2] / "integrations" / "langchain" / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("code", EXAMPLES)
def test_every_example_of_the_readme_runs_and_runs_again(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "langchain_classic" in code:
        pytest.importorskip("langchain_classic", reason="langchain-classic isn't installed")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        exec(compile(code, str(README), "exec"), {})


def test_all_public_names_are_there_and_typed() -> None:
    assert all(hasattr(langchain_muvera, name) for name in langchain_muvera.__all__)
    assert Path(langchain_muvera.__file__).with_name("py.typed").exists()
