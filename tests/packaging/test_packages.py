"""What is published can be built, holds what it must and nothing else, and works when it is installed.

The kernels are compiled for minutes, and an empty environment needs a package index. So both are left to
``python tools/build_packages.py dist`` and ``python tools/try_packages.py dist``, which a release runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from build_packages import PACKAGES, build, clean_copy, files_in, is_foreign, problems_of, problems_of_descriptions
from set_home import distributions

ROOT = Path(__file__).parents[2]
FIRST_USE = Path(__file__).with_name("first_use.py")
SMALL = [name for name in distributions(ROOT) if name not in ("core/kernels", "core/multilingual")]

pytest.importorskip("build.__main__", reason="needs build")  # a folder of build outputs is no package
pytest.importorskip("hatchling", reason="needs hatchling")
if not (ROOT / ".git").exists():
    pytest.skip("needs the repository's Git folder, to know which files are its own", allow_module_level=True)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clean_copy(ROOT, tmp_path_factory.mktemp("packages") / "checkout")


@pytest.fixture(scope="module")
def built(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """A wheel, made from a source distribution, and that, by folder. The multilingual model takes long to compress."""
    output = tmp_path_factory.mktemp("dist")
    return {name: build(checkout / name, output, isolated=False) for name in SMALL}


@pytest.mark.parametrize("name", SMALL)
def test_wheels_and_source_distributions_hold_the_package_and_nothing_else(
    name: str, built: dict[str, list[Path]], checkout: Path
) -> None:
    wheel, sdist = sorted(built[name], key=lambda path: path.suffix != ".whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert sdist.name.endswith(".tar.gz")
    assert problems_of(wheel, checkout, name) == []
    assert problems_of(sdist, checkout, name) == []


def test_the_core_brings_its_model_and_says_where_it_comes_from(built: dict[str, list[Path]]) -> None:
    [wheel] = [path for path in built["."] if path.suffix == ".whl"]
    content = dict(files_in(wheel))
    for name in ("model.onnx", "gpu.onnx", "tokenizer.json", "encoder.json", "NOTICE", "LICENSE"):
        assert content[f"muvera_core/encoders/assets/{name}"]
    assert any(path.endswith("dist-info/licenses/core/muvera_core/encoders/assets/NOTICE") for path in content)


def test_a_package_index_will_show_the_readmes(built: dict[str, list[Path]]) -> None:
    pytest.importorskip("twine", reason="needs twine")
    assert problems_of_descriptions([path for paths in built.values() for path in paths]) == []


def test_kernels_are_published_with_their_sources(checkout: Path, tmp_path: Path) -> None:
    pytest.importorskip("scikit_build_core", reason="needs scikit-build-core")
    [sdist] = build(checkout / "core/kernels", tmp_path, isolated=False, with_wheel=False)
    assert problems_of(sdist, checkout, "core/kernels") == []
    content = dict(files_in(sdist))
    sources = [path for path in (checkout / "core/kernels/src").iterdir() if path.is_file()]
    assert [path.name for path in sources if content.get(f"src/{path.name}") != path.read_bytes()] == []
    assert "CMakeLists.txt" in content


def test_installed_wheels_answer_through_both_frameworks(built: dict[str, list[Path]], tmp_path: Path) -> None:
    wheels = [str(path) for paths in built.values() for path in paths if path.suffix == ".whl"]
    place = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(place)]
    subprocess.run([*pip, *wheels], check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    done = subprocess.run(
        [sys.executable, str(FIRST_USE), str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(place)},
        check=True,
        capture_output=True,
        text=True,
    )
    answer = json.loads(done.stdout)
    imported = {name: path for name, path in answer["imported"].items() if name != "muvera_kernels"}
    assert all(path.startswith(str(place)) for path in imported.values())
    assert answer["encoded"] == [3, 0]
    assert {answer[way] for way in ("core", "langchain", "llama_index")} == {"owl"}
    assert "Owls hunt at night." in answer["command line"]


# The checks find what they are for


def test_what_does_not_belong_or_is_missing_is_named(checkout: Path, tmp_path: Path) -> None:
    package, cut = PACKAGES["integrations/langchain"]
    wheel = tmp_path / "langchain_muvera-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in sorted((checkout / package).iterdir()):
            if path.name not in ("retrievers.py", "documents.py"):
                archive.write(path, path.relative_to(checkout).as_posix().removeprefix(cut))
        archive.writestr("langchain_muvera/documents.py", "# not what the checkout has")
        archive.writestr("tests/test_it.py", "")
    assert problems_of(wheel, checkout, "integrations/langchain") == [
        f"{wheel.name} lacks a licence in its metadata",
        f"{wheel.name} lacks langchain_muvera/retrievers.py",
        f"{wheel.name} should not hold tests/test_it.py",
        f"{wheel.name} holds a changed langchain_muvera/documents.py",
    ]


def test_foreign_files_are_known() -> None:
    assert is_foreign("tests/test_it.py")
    assert is_foreign("core/muvera_core/__pycache__/x.pyc")
    assert is_foreign(".github/workflows/release.yml")
    assert not is_foreign("core/muvera_core/evaluation/__init__.py")


def test_an_empty_source_distribution_lacks_everything(checkout: Path, tmp_path: Path) -> None:
    sdist = tmp_path / "langchain_muvera-1.tar.gz"
    with tarfile.open(sdist, "w:gz"):
        pass
    problems = problems_of(sdist, checkout, "integrations/langchain")
    assert f"{sdist.name} lacks README.md" in problems
    assert f"{sdist.name} lacks langchain_muvera/py.typed" in problems
