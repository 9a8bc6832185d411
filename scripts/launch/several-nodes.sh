#!/usr/bin/env bash
# Searches or trains on several machines: the same command on each of them, with the same code, data and config.
# Usage: NODES=2 HOST=first-machine scripts/launch/several-nodes.sh search dsara-cifar10 --out results/search --resume
# HOST is one of the machines, where the others find it (PORT: 29400). PROCESSES per machine: its GPUs, or a number.
# The process of rank 0 writes the run folder. It may run on any of the machines: put the folder on a shared disk.
set -euo pipefail
if [ "$#" -lt 2 ] || [ -z "${NODES:-}" ] || [ -z "${HOST:-}" ]; then
  sed -n '2,5s/^# //p' "$0" >&2
  exit 2
fi
source "$(dirname "$0")/../allocator.sh"
exec torchrun --nnodes "$NODES" --nproc-per-node "${PROCESSES:-gpu}" --max-restarts "${RESTARTS:-0}" \
  --rdzv-id "${JOB:-robust_nas}" --rdzv-backend c10d --rdzv-endpoint "$HOST:${PORT:-29400}" -m robust_nas "$@"
