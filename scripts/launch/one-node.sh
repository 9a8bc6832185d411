#!/usr/bin/env bash
# Searches or trains on all GPUs of this machine, or with PROCESSES processes (on a CPU: say how many).
# Usage: scripts/launch/one-node.sh search dsara-cifar10 data.path=/data/cifar-10-binary.tar.gz --resume
#        PROCESSES=2 scripts/launch/one-node.sh train quickstart --architecture arnas --out results/arnas --resume
# RESTARTS=3 starts a job that lost a process again by itself, for which it needs --resume.
set -euo pipefail
if [ "$#" -lt 2 ]; then
  sed -n '2,5s/^# //p' "$0" >&2
  exit 2
fi
source "$(dirname "$0")/../allocator.sh"
exec torchrun --standalone --nproc-per-node "${PROCESSES:-gpu}" --max-restarts "${RESTARTS:-0}" -m robust_nas "$@"
