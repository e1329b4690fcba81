"""Installs built wheels into an empty environment, as a newcomer would, and measures the time to the first answer.

    python tools/build_packages.py dist
    python tools/try_packages.py dist [--python python3.13]

Dependencies come from the package index that pip is set up with. Measured are ``pip install`` of muvera-core into an
empty environment, the first answer from there, and the second; then both integrations are installed, and
tests/packaging/first_use.py runs. Nothing is imported from the checkout: Python runs isolated, in another folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from set_home import REPOSITORY

FIRST_USE = REPOSITORY / "tests" / "packaging" / "first_use.py"
FIRST_ANSWER = """
from muvera_core import MuveraIndex

with MuveraIndex.open_or_create("birds.muvera") as index:
    index.add(["Ants live in colonies.", "Owls hunt at night."], ids=["ant", "owl"])
    assert index.search("Which bird is active after dark?", k=1)[0].id == "owl"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path, help="folder of the wheels")
    parser.add_argument("--python", default=sys.executable, help="interpreter (default: this one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        timed("python -m venv", [arguments.python, "-m", "venv", str(place / "env")], place)
        python = str(place / "env" / ("Scripts" if os.name == "nt" else "bin") / "python")
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        core = wheels_for(pip, arguments.wheels, ["muvera-core", "muvera-kernels"], place)
        integrations = wheels_for(pip, arguments.wheels, ["langchain-muvera", "llama-index-retrievers-muvera"], place)
        start = time.perf_counter()
        timed("pip install muvera-core", [*pip, "install", "--quiet", *core], place)
        timed("first answer", [python, "-I", "-c", FIRST_ANSWER], place)
        print(f"{time.perf_counter() - start:6.1f} s  from pip install to the first answer", flush=True)
        timed("second answer", [python, "-I", "-c", FIRST_ANSWER], place)
        timed("pip install both integrations", [*pip, "install", "--quiet", *integrations], place)
        output = timed("first use of everything", [python, "-I", str(FIRST_USE), str(place)], place)
        outside = {
            name: path for name, path in json.loads(output)["imported"].items() if not path.startswith(str(place))
        }
        if outside:
            raise SystemExit(f"not imported from the environment: {outside}")
        print(output.strip())


def wheels_for(pip: list[str], folder: Path, names: list[str], place: Path) -> list[str]:
    """The wheel of each of these distributions that fits the interpreter, which ``pip`` chooses."""
    chosen = place / "wheels"
    options = ["--no-deps", "--no-index", "--only-binary", ":all:", "--find-links", str(folder.resolve())]
    subprocess.run([*pip, "download", "--quiet", *options, "--dest", str(chosen), *names], check=True)
    return [str(next(chosen.glob(f"{name.replace('-', '_')}-*"))) for name in names]


def timed(what: str, command: list[str], place: Path) -> str:
    """Run a command in another folder and print its time. Returns its output."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=place, env=environment, stdout=subprocess.PIPE, text=True)
    print(f"{time.perf_counter() - start:6.1f} s  {what}", flush=True)
    if done.returncode:
        raise SystemExit(f"{what} failed: {done.stdout}")
    return done.stdout


if __name__ == "__main__":
    main()
