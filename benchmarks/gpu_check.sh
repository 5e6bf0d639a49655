#!/usr/bin/env bash
# All that needs an NVIDIA GPU, in one command and under eight minutes on a bare machine: a first look, the tests marked
# gpu, then the timings beside PyTorch and CuPy. Nothing is installed and nothing is fetched.
#
#   benchmarks/gpu_check.sh [FOLDER] [--stages look,tests,…] [--seconds 470] [--continue FOLDER] …   (--help shows all)
#
# FOLDER ($OUT, else benchmarks/results) gets <gpu-name>.json, which holds every figure as soon as it is there, log.txt,
# tests.jsonl, graphs.txt and cupycache.tgz. In the environment: PYTHON, the interpreter (python3) with CuPy and, for the
# rivals, PyTorch; WHEELS, a folder of wheels for what that interpreter lacks; GPUNET_DATA, the folder with mnist/ and
# cifar10/, without which pictures of their shapes are made; GPUNET_COMMIT, the commit where .git is not there to say
# it; CUPY_CACHE_DIR and CUPY_NVRTC_USE_PCH, CuPy's own.
# Exit code: 0; 1 where a test or a section failed or was not run; 3 where all ran and a target was missed.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
if [ -n "${WHEELS:-}" ]; then
  wheels=$(mktemp -d)
  trap 'rm -rf "$wheels"' EXIT
  export GPU_CHECK_WHEELS=$wheels # removed in the end by what is started below
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$wheels" "$WHEELS"/*.whl ||
    echo "the wheels of $WHEELS cannot be installed: going on without them" >&2
  export PYTHONPATH=$PYTHONPATH:$wheels
fi
exec "$python" benchmarks/gpu_check.py "$@" # which signals reach then
