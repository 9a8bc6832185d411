#!/usr/bin/env bash
# Sets up everything on a fresh machine, then runs lint, types, the build of the pages and the whole test suite; and once
# more, as if NNI were not installed, the tests of what could meet it.
# Arguments go to pytest: scripts/test.sh tests/search -k min_norm
# With --fast first: lint, types, and the tests but those marked slow and the files in tests/slow.txt; under four minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
fast=()
if [ "${1:-}" = --fast ]; then
  fast=(-m "not slow")
  shift
fi
source scripts/setup.sh
setup dev
if [ ! -d /usr/share/datasets/fashion-mnist ]; then
  as_root apt-get update -qq
  as_root apt-get install -y -qq dataset-fashion-mnist
fi
# Two processes of one thread each: the tests are small, and two threads on a busy machine are slower than one.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# What the tests write goes to memory where it has room: jobs write durably, and a disk takes milliseconds a file.
memory=()
if [ -w /dev/shm ] && [ "$(df -k --output=avail /dev/shm | tail -n 1)" -gt 4000000 ]; then
  folder=$(mktemp -d /dev/shm/robust-nas.XXXXXX)
  trap 'rm -rf "$folder"' EXIT
  memory=(--basetemp "$folder/tests")
fi
.venv/bin/ruff check .
.venv/bin/ruff format --check .
# Types and pages are checked while the tests begin: alone they would keep one core of two idle.
{ .venv/bin/mypy && .venv/bin/mkdocs build --strict; } > .checks.log 2>&1 &
checks=$!
tests=0
.venv/bin/pytest -n 2 --dist loadfile "${memory[@]}" "${fast[@]}" "$@" || tests=$?
wait "$checks" || { cat .checks.log; exit 1; }
cat .checks.log
[ "$tests" -eq 0 ] || exit "$tests"
if [ "$#" -eq 0 ] && [ "${#fast[@]}" -eq 0 ]; then
  ROBUST_NAS_HIDE_NNI=1 .venv/bin/pytest -n 2 --dist loadfile "${memory[@]}" tests/integrations tests/cli/test_cli.py \
    tests/cli/test_search_cli.py tests/recipes tests/test_config.py
fi
