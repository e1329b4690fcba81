#!/usr/bin/env bash
# Tests and measures everything that needs a GPU, in one run of a few minutes: the tests that CI can only run on a
# simulated GPU, and then the benchmark. PYTHON names an interpreter that has muvera-core with CuPy, muvera-kernels and
# pytest; PyTorch, onnxruntime-gpu and sentence-transformers are used if they are there. FOLDER, the only argument, is
# where the results are written; by default they are only printed.
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONUNBUFFERED=1  # what was printed before the time is up is not lost
python="${PYTHON:-python}"
folder="${1:-$(mktemp -d)}"
mkdir -p "$folder"

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || exit
"$python" -c 'import muvera_kernels; print("muvera-kernels", muvera_kernels.available_kernels())' ||
    echo "muvera-kernels is not installed: reranking goes the slower way"

failed=0
timeout 240 "$python" -m pytest -q -p no:cacheprovider -k "not simulated" -rs --tb=short \
    tests/core/test_cuda.py tests/core/test_cuda_exact.py tests/core/test_cuda_host_path.py \
    tests/core/test_device_directory.py tests/core/test_device_rows.py tests/core/test_gpu_encoders.py \
    tests/core/test_kernels_compile.py 2>&1 | tee "$folder/tests.txt" || failed=1
timeout 240 "$python" tests/benchmarks/gpu.py 2>&1 | tee "$folder/benchmark.txt" || failed=1
exit "$failed"
