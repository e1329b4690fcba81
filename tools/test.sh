#!/usr/bin/env bash
# Checks style and types and runs all tests, in .venv-test with the newest versions of everything that is used, and
# then the tests of the core and the integrations again, in .venv-floor with the oldest versions that are supported.
# Needs Python 3.11+, a C++ compiler (hnswlib is built from source) and a package index. PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
"$python" -c 'import sys; assert sys.version_info >= (3, 11), f"muvera needs Python 3.11 or newer, this is {sys.version}"'

"$python" -m venv .venv-floor
.venv-floor/bin/python -m pip install --quiet -r tests/requirements-floor.txt \
    -e . -e ./integrations/langchain -e ./integrations/llama-index
.venv-floor/bin/python -m pytest --quiet --ignore tests/core/test_colbert_encoder.py \
    --ignore tests/core/test_build_bundled_encoder.py

"$python" -m venv .venv-test
.venv-test/bin/python -m pip install --quiet -r tests/requirements.txt \
    -e '.[colbert,plot,pooling]' -e ./integrations/langchain -e ./integrations/llama-index
.venv-test/bin/ruff check .
.venv-test/bin/ruff format --check .
.venv-test/bin/mypy
.venv-test/bin/mypy -p llama_index.retrievers.muvera
.venv-test/bin/python -m pytest "$@"
