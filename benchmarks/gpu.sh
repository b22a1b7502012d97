#!/usr/bin/env bash
# All that wants a GPU, within ten minutes on one H200: benchmarks/gpu.sh [--toy] [--record] [--seconds 570]
# From a checkout, with any Python that has PyTorch and the packages of ray_mae (Ray and DeepSpeed may be
# missing). PYTHON names another interpreter than the checkout's or the path's. Nothing is downloaded.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-}"
if [ -z "$python" ]; then
  python=python3
  [ -x .venv/bin/python ] && python=.venv/bin/python
fi
exec "$python" -m benchmarks.gpu "$@"
