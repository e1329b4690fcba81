#!/usr/bin/env bash
# Installs muvera and both integrations into .venv and runs examples/quickstart.py.
# Needs Python 3.11+, a C++ compiler (hnswlib and the kernels are built from source) and a package index. PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
"${PYTHON:-python3}" -c 'import sys; assert sys.version_info >= (3, 11), f"muvera needs Python 3.11 or newer, this is {sys.version}"'
"${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install --quiet . ./core/kernels ./integrations/langchain ./integrations/llama-index
exec .venv/bin/python examples/quickstart.py "$@"
