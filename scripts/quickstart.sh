#!/usr/bin/env bash
# Sets up everything on a fresh machine, then searches, trains, attacks, compresses and exports a network on real digits.
# A second call continues or shows results/quickstart; any arguments go to `robust-nas run quickstart`.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
setup export
source scripts/allocator.sh
if [ "$#" -eq 0 ]; then set -- --resume; fi
exec .venv/bin/robust-nas run quickstart "$@"
