#!/usr/bin/env bash
# Checks style and types and runs all tests, in .venv-test with the newest versions of everything that is used, and
# those that versions can make a difference to also in .venv-floor, with the oldest that are supported. Arguments go to
# the last pytest. Both are installed at the same time, and style and types are checked while the floor's tests run.
# Needs Python 3.11+, a C++ compiler (hnswlib is built from source) and a package index. PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
"$python" -c 'import sys; assert sys.version_info >= (3, 11), f"muvera needs Python 3.11 or newer, this is {sys.version}"'

# A process per core runs tests, and each keeps its linear algebra to one thread.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
in_parallel=(--numprocesses auto --maxprocesses 8 --dist worksteal)

floor_leaves_out=(
    # What these test has no old version.
    --ignore tests/core/test_colbert_encoder.py
    --ignore tests/core/test_build_bundled_encoder.py
    # Long campaigns about our own order of writes, our own checks of what was written, and our own undoing of what was
    # cut short. Nothing that has versions decides any of it; what they stand on is tested by all that isn't named here.
    --ignore tests/durability/crash
    --ignore tests/durability/test_corruption.py
    --ignore tests/durability/test_interruptions.py
    --ignore tests/durability/test_stateful.py
    --deselect tests/core/test_tuning.py::test_interrupted_at_any_step_the_index_is_whole
)

make_newest() {
    "$python" -m venv .venv-test
    .venv-test/bin/python -m pip install --quiet -r tests/requirements.txt \
        -e '.[colbert,plot,pooling]' -e ./integrations/langchain -e ./integrations/llama-index
}

check_style_and_types() {
    .venv-test/bin/ruff check .
    .venv-test/bin/ruff format --check .
    .venv-test/bin/mypy
    .venv-test/bin/mypy -p llama_index.retrievers.muvera
}

# Does something beside what follows, in a process group of its own, so that all of it can be ended.
told="$(mktemp)"
beside=
trap '[ -z "$beside" ] || kill -- "-$beside" 2>/dev/null || true; rm -f "$told"' EXIT
start() {
    set -m
    "$@" >"$told" 2>&1 &
    beside=$!
    set +m
}
finish() {
    local status=0
    wait "$beside" || status=$?
    beside=
    cat "$told"
    return "$status"
}

start make_newest
"$python" -m venv .venv-floor
.venv-floor/bin/python -m pip install --quiet -r tests/requirements-floor.txt \
    -e . -e ./integrations/langchain -e ./integrations/llama-index
finish

start check_style_and_types
floor=0
.venv-floor/bin/python -m pytest --quiet "${in_parallel[@]}" "${floor_leaves_out[@]}" || floor=$?
finish
[ "$floor" -eq 0 ] || exit "$floor"

.venv-test/bin/python -m pytest "${in_parallel[@]}" "$@"
