#!/usr/bin/env bash
# Checks style and types, and runs the tests: in .venv-test all of them, with the newest versions of all packages; before
# that, in .venv-floor, with the oldest supported versions, those that versions can influence; and in .venv-models those
# of sentence-transformers' models and of the chat, which need versions of Hugging Face's packages that colbert-ai cannot
# use. The environments are installed at the same time. Style and types are checked while the tests of the floor run. Arguments go to the last
# pytest. Needs Python 3.11+, a C++ compiler (hnswlib and the kernels are built from source) and a package index. PYTHON
# names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
"$python" -c 'import sys; assert sys.version_info >= (3, 11), f"muvera needs Python 3.11 or newer, this is {sys.version}"'

# One process per core runs tests. Each uses one thread for linear algebra.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
in_parallel=(--numprocesses auto --maxprocesses 8 --dist worksteal)

floor_leaves_out=(
    # These test packages that have no older supported version.
    --ignore tests/core/test_colbert_encoder.py
    --ignore tests/core/test_build_bundled_encoder.py
    --ignore tests/core/test_build_multilingual_encoder.py
    --ignore tests/models
    --ignore tests/docs
    # Kernels of the GPU, compiled by the same compiler.
    --ignore tests/core/test_cuda.py
    --ignore tests/core/test_cuda_exact.py
    --ignore tests/core/test_cuda_host_path.py
    # Long campaigns about our own code: the order of writes, the checks of what was written, and the undoing of what was
    # interrupted. No package's version decides these. What they build on is tested by all other tests.
    --ignore tests/durability/crash
    --ignore tests/durability/test_corruption.py
    --ignore tests/durability/test_interruptions.py
    --deselect tests/core/test_tuning.py::test_interrupted_at_any_step_the_index_is_whole
)

make_newest() {
    "$python" -m venv .venv-test
    .venv-test/bin/python -m pip install --quiet -r tests/requirements.txt \
        -e '.[colbert,documents,images,plot,pooling,ray,ray-serve,client]' ./core/kernels -e ./core/multilingual \
        -e ./integrations/langchain -e ./integrations/llama-index
}

make_models() {
    "$python" -m venv .venv-models
    .venv-models/bin/python -m pip install --quiet -r tests/requirements-models.txt \
        -e '.[sentence-transformers,documents,images]' ./core/kernels -e ./core/chat -e ./integrations/langchain
}

check_style_and_types() {
    .venv-test/bin/ruff check .
    .venv-test/bin/ruff format --check .
    .venv-test/bin/mypy
    .venv-test/bin/mypy -p llama_index.retrievers.muvera
}

# `start` runs a command in the background, in its own process group. `finish` waits for it and prints its output.
output="$(mktemp)"
group=
trap '[ -z "$group" ] || kill -- "-$group" 2>/dev/null || true; rm -f "$output"' EXIT
start() {
    set -m
    "$@" >"$output" 2>&1 &
    group=$!
    set +m
}
finish() {
    local status=0
    wait "$group" || status=$?
    group=
    cat "$output"
    return "$status"
}

make_newest_and_models() {
    make_newest
    make_models
}

start make_newest_and_models
"$python" -m venv .venv-floor
.venv-floor/bin/python -m pip install --quiet -r tests/requirements-floor.txt \
    -e '.[images]' ./core/kernels -e ./core/multilingual -e ./integrations/langchain -e ./integrations/llama-index
finish

start check_style_and_types
floor=0
.venv-floor/bin/python -m pytest --quiet "${in_parallel[@]}" "${floor_leaves_out[@]}" || floor=$?
finish
[ "$floor" -eq 0 ] || exit "$floor"

.venv-models/bin/python -m pytest --quiet "${in_parallel[@]}" tests/models tests/chat

.venv-test/bin/python -m pytest "${in_parallel[@]}" "$@"
