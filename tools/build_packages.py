"""Builds what is published: a source distribution of every package, and a wheel from each of them.

    pip install build twine
    python tools/build_packages.py dist                              all of them, into the folder dist
    python tools/build_packages.py dist --only . --no-isolation      muvera-core, with what is installed here

The files are built from a copy of the checkout that has its own files only, so no caches or build outputs get into
them. A wheel must then hold the files of its package as they are in the checkout, its metadata, and nothing else. If
twine is installed, it checks that a package index will show the READMEs.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from set_home import REPOSITORY, distributions

# Folder of each package that a distribution installs, in the checkout, and the part of it that is left out in wheels.
PACKAGES = {
    ".": ("core/muvera_core", "core/"),
    "core/kernels": ("core/kernels/muvera_kernels", "core/kernels/"),
    "core/multilingual": ("core/multilingual/muvera_multilingual", "core/multilingual/"),
    "core/chat": ("core/chat/muvera_chat", "core/chat/"),
    "integrations/langchain": ("integrations/langchain/langchain_muvera", "integrations/langchain/"),
    "integrations/llama-index": ("integrations/llama-index/llama_index/retrievers/muvera", "integrations/llama-index/"),
}
# What a wheel may hold beside the files of the checkout: compiled modules.
_COMPILED = (".so", ".pyd")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder for the files")
    parser.add_argument("--only", nargs="+", help="folders of distributions, such as integrations/langchain")
    parser.add_argument("--sdist-only", action="store_true", help="build no wheels")
    parser.add_argument("--no-isolation", action="store_true", help="use the build backends that are installed here")
    arguments = parser.parse_args()
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        checkout = clean_copy(REPOSITORY, Path(temporary) / "checkout")
        for name in arguments.only or distributions(checkout):
            built = build(checkout / name, arguments.output, not arguments.no_isolation, not arguments.sdist_only)
            print("\n".join(f"{path.name}: {path.stat().st_size:,} bytes" for path in built), flush=True)
            problems += [problem for path in built for problem in problems_of(path, checkout, name)]
            problems += problems_of_descriptions(built)
    if problems:
        raise SystemExit("\n".join(problems))


def clean_copy(checkout: Path, target: Path) -> Path:
    """Copy the files that Git knows or would add. What it ignores stays behind."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=checkout,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (checkout / name).is_file():  # a deleted file is listed until its deletion is committed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkout / name, target / name)
    return target


def build(folder: Path, output: Path, isolated: bool, with_wheel: bool = True) -> list[Path]:
    """Build the source distribution of a folder, and a wheel from it. Returns the files."""
    with tempfile.TemporaryDirectory() as fresh:
        here = ["--no-isolation", "--skip-dependency-check"]
        options = ([] if with_wheel else ["--sdist"]) + ([] if isolated else here)
        subprocess.run(
            [sys.executable, "-m", "build", *options, "--outdir", fresh, str(folder)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        output.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy2(path, output)) for path in sorted(Path(fresh).iterdir())]


def problems_of(built: Path, checkout: Path, name: str) -> list[str]:
    """What is wrong with the files of a wheel or a source distribution, one line each."""
    content = dict(files_in(built))
    package, cut = PACKAGES[name]
    expected = {
        path.relative_to(checkout).as_posix(): path.read_bytes()
        for path in (checkout / package).rglob("*")
        if path.is_file()
    }
    if built.suffix == ".whl":
        expected = {path.removeprefix(cut): data for path, data in expected.items()}
        extra = [path for path in content if path not in expected and ".dist-info/" not in path]
        extra = [path for path in extra if not path.endswith(_COMPILED)]
        licences = [path for path in content if ".dist-info/licenses/" in path]
        missing = [] if licences else ["a licence in its metadata"]
    else:
        expected = {path.removeprefix("" if name == "." else f"{name}/"): data for path, data in expected.items()}
        extra = [path for path in content if is_foreign(path)]
        missing = [path for path in ("README.md", "LICENSE", "pyproject.toml", "PKG-INFO") if path not in content]
    missing += [path for path in expected if path not in content]
    changed = [path for path, data in expected.items() if content.get(path, data) != data]
    lists = (("lacks", missing), ("should not hold", extra), ("holds a changed", changed))
    return [f"{built.name} {what} {path}" for what, paths in lists for path in paths]


def is_foreign(path: str) -> bool:
    """Whether a path has no place in a source distribution: tests, caches, workflows, hidden files."""
    parts = PurePosixPath(path).parts
    hidden = any(part.startswith(".") and part != ".gitignore" for part in parts)
    return hidden or "__pycache__" in parts or parts[0] in ("tests", "docs", "tools", "examples") or parts[-1] == "run"


def files_in(built: Path) -> Iterator[tuple[str, bytes]]:
    """Path and content of each file of a wheel, or of a source distribution below its top folder."""
    if built.suffix == ".whl":
        with zipfile.ZipFile(built) as wheel:
            yield from ((info.filename, wheel.read(info)) for info in wheel.infolist() if not info.is_dir())
        return
    with tarfile.open(built) as sdist:
        for member in sdist.getmembers():
            file = sdist.extractfile(member)
            if file is not None:
                yield member.name.partition("/")[2], file.read()


def problems_of_descriptions(built: list[Path]) -> list[str]:
    """What twine finds wrong with the metadata and the READMEs, if it is installed."""
    if importlib.util.find_spec("twine") is None:
        print("twine is not installed: the metadata were not checked")
        return []
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)]
    checked = subprocess.run(command, capture_output=True, text=True)
    return [] if checked.returncode == 0 else [checked.stdout + checked.stderr]


if __name__ == "__main__":
    main()
