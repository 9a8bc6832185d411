#!/usr/bin/env bash
# Sets up everything on a fresh machine, then runs lint, types and the whole test suite.
# Arguments go to pytest: scripts/test.sh tests/search -k min_norm
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
setup dev
if [ ! -d /usr/share/datasets/fashion-mnist ]; then
  as_root apt-get update -qq
  as_root apt-get install -y -qq dataset-fashion-mnist
fi
# One thread a process: the tests are small, and two threads on a busy machine are slower than one.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/pytest "$@"
