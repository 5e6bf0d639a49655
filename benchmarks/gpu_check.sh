#!/usr/bin/env bash
# All that needs an NVIDIA GPU, in one command and under eight minutes: the tests marked gpu, then the timings beside
# PyTorch and CuPy. Nothing is installed and nothing is fetched.
#
#   benchmarks/gpu_check.sh [FOLDER] [--parts tests,train-64,…] [--seconds 465] …   (--help shows all)
#
# FOLDER ($OUT, else benchmarks/results) gets <gpu-name>.json, which holds every part as soon as it is done, and the logs.
# In the environment: PYTHON, the interpreter (python3) with CuPy and, for the rivals, PyTorch; WHEELS, a folder of
# wheels for what that interpreter lacks; GPUNET_DATA, the folder with mnist/ and cifar10/, without which pictures of
# their shapes are made. Exit code: 0; 1 where a test or a part failed; 3 where all ran and a target was missed.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# As installed: gpunet from this checkout, and cli/ and datasets/ as gpunet.cli and gpunet.datasets (pyproject.toml).
mkdir "$work/site"
ln -s "$PWD/gpunet" "$work/site/gpunet"
cat >"$work/site/sitecustomize.py" <<EOF
import sys
from importlib.util import spec_from_file_location

class Folders:
    @staticmethod
    def find_spec(name, path=None, target=None):
        folder = {"gpunet.cli": "$PWD/cli", "gpunet.datasets": "$PWD/datasets"}.get(name)
        return folder and spec_from_file_location(name, folder + "/__init__.py", submodule_search_locations=[folder])

sys.meta_path.append(Folders)
EOF
export PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}
if [ -n "${WHEELS:-}" ]; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$work/wheels" "$WHEELS"/*.whl
  export PYTHONPATH=$PYTHONPATH:$work/wheels
fi
export GPUNET_DATA=${GPUNET_DATA:-$work/data} TORCHINDUCTOR_CACHE_DIR=$work/inductor MPLCONFIGDIR=$work/matplotlib
"$python" benchmarks/gpu_check.py "$@"
