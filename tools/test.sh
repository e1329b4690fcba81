#!/usr/bin/env bash
# Installs muvera with everything its tests need into .venv-test, checks style and types, and runs all tests.
# Needs Python 3.11+, a C++ compiler (hnswlib is built from source) and a package index. PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
"${PYTHON:-python3}" -c 'import sys; assert sys.version_info >= (3, 11), f"muvera needs Python 3.11 or newer, this is {sys.version}"'
"${PYTHON:-python3}" -m venv .venv-test
.venv-test/bin/python -m pip install --quiet -r tests/requirements.txt \
    -e '.[colbert]' -e ./integrations/langchain -e ./integrations/llama-index
.venv-test/bin/ruff check .
.venv-test/bin/ruff format --check .
.venv-test/bin/mypy
.venv-test/bin/mypy -p llama_index.retrievers.muvera
exec .venv-test/bin/python -m pytest "$@"
