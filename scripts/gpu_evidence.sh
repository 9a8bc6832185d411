#!/usr/bin/env bash
# Measures on a GPU what docs/benchmarks.md marks missing, by itself, and writes one results/gpu-evidence/report.md:
# speed of the attacks, the supernet and a training step; cost of the published DSARA search on CIFAR-10 (first order,
# FGSM and PGD-7); then a search, and its network next to a random one of equal MACs and DARTS_V2, all trained by one
# recipe and attacked by the cascade.
#
#   scripts/gpu_evidence.sh FOLDER [options] [recipe overrides]    # FOLDER/train/<class>/*.jpg, FOLDER/test/<class>/*.jpg
#   scripts/gpu_evidence.sh --dry-run                              # tiny, on the CPU, 9 minutes on a busy machine
#
# Options: --search-epochs N (10)  --train-epochs N (20)  --seeds "0 1" (0)  --images N (1000)
#          --attacks-minutes N (10)  --supernet-minutes N (30)  --cost-minutes N (20)  --evidence-minutes N (360)
# Needs: a GPU that torch sees, Python 3.11 or newer, a network for the set-up (once), 10 GB of disk.
# Takes: at most the sum of its limits, 7 hours; how long it needs on a GPU was not measured. A part that fails or runs
# out of time is named in the report and does not stop the others; the evidence goes on where it was when called again.
# PYTHON chooses the Python of the set-up. EVIDENCE_PYTHON=/path/to/python skips the set-up and uses that one.
# The recipe is shortened from dsara-cifar10: 8 cells, 36 channels, batch 128, cosine schedule, and FGSM in the search
# (overrides such as network.cells=20 come last and win).
set -uo pipefail
start="$PWD"
cd "$(dirname "$0")/.."

dry="" folder="" overrides=() search_epochs=10 train_epochs=20 seeds=0 images=1000
attacks_minutes=10 supernet_minutes=30 cost_minutes=20 evidence_minutes=360
while [ "$#" -gt 0 ]; do
  case "$1" in
    --dry-run) dry=yes; shift ;;
    --search-epochs|--train-epochs|--seeds|--images|--attacks-minutes|--supernet-minutes|--cost-minutes|--evidence-minutes)
      [ "$#" -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
      name="${1#--}"; printf -v "${name//-/_}" '%s' "$2"; shift 2 ;;
    -h|--help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    -*) echo "error: unknown option $1; --help tells them" >&2; exit 2 ;;
    *=*) overrides+=("$1"); shift ;;
    *) folder="$1"; shift ;;
  esac
done
[[ -z "$folder" || "$folder" = /* ]] || folder="$start/$folder"
if [ -z "$dry" ] && [ ! -d "$folder/train" ]; then
  echo "error: '$folder' has no folder train; give the image folder of CIFAR-10, or --dry-run" >&2
  exit 2
fi

if [ -z "${EVIDENCE_PYTHON:-}" ]; then
  (set -e; source scripts/setup.sh; setup dev) || { echo "error: the set-up failed" >&2; exit 1; }
fi
python="${EVIDENCE_PYTHON:-.venv/bin/python}"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ -z "$dry" ] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "error: this torch sees no GPU; --dry-run needs none" >&2
  exit 2
fi

out=results/gpu-evidence
if [ -n "$dry" ]; then
  out=results/gpu-evidence-dry-run device=cpu
  attacks=(--width 4 --batch 4 --rounds 1) supernet=(--quick --rounds 1)
  training=(--channels 4 --cells 4 --batch 4 --rounds 1)
  recipe=(quickstart name=gpu-evidence-dry-run-networks data.limit=300 search.epochs=2 search.stage1_epochs=1
    search.batch_size=16 search.channels=2 network.channels=4 training.epochs=2 training.validate_from=1
    training.schedule.warmup_epochs=0)
  cost=(--steps 1) evidence=(--images 8 --seeds 0)
else
  device=cuda attacks=(--width 64 --batch 128) supernet=() training=(--channels 36 --batch 128)
  recipe=(dsara-cifar10 name=gpu-evidence-networks data.name=image-folder "data.path=$folder" search.order=1
    "search.epochs=$search_epochs" "search.stage1_epochs=$((search_epochs * 2 / 5))"
    "search.attack={name: fgsm-rs, eps: 8/255}" network.cells=8 network.channels=36
    "training.epochs=$train_epochs" training.batch_size=128 "training.schedule={name: cosine, warmup_epochs: 1}"
    "training.validate_from=$((train_epochs / 2))" training.validate_every=2 training.validation_images=1000)
  read -ra list <<< "$seeds"
  cost=(--steps 20) evidence=(--images "$images" --seeds "${list[@]}")
fi
recipe+=(${overrides[@]+"${overrides[@]}"})
networks="results/$(printf '%s\n' "${recipe[@]}" | sed -n 's/^name=//p' | tail -1)"
mkdir -p "$out"
report="$out/report.md" failed=0

# part TITLE MINUTES TABLE COMMAND...: runs a command within a limit; its outcome and TABLE (- for what it prints) go to the report.
part() {
  local title="$1" minutes="$2" table="$3" log rc began="$SECONDS" outcome=done
  shift 3
  log="$out/$(tr -cs 'a-z0-9\n' - <<< "${title,,}").log"
  echo "$title: at most $minutes minutes; log: $log" >&2
  timeout --kill-after=60 "${minutes}m" "$python" "$@" > "$log" 2> "$log.err"
  rc=$?
  if [ "$rc" -ne 0 ]; then
    failed=1 outcome="FAILED, exit status $rc"
    [ "$rc" -eq 124 ] || [ "$rc" -eq 137 ] && outcome="OUT OF TIME after $minutes minutes"
  fi
  echo "  $outcome, $((SECONDS - began)) s" >&2
  {
    printf '## %s\n\n`python %s`: %s, %d s\n\n' "$title" "$*" "$outcome" $((SECONDS - began))
    [ "$table" = - ] && table="$log"
    if [ -s "$table" ]; then sed 's/^# /### /' "$table"; else echo "**Missing.**"; fi
    [ "$rc" -eq 0 ] || { printf '\n```\n'; tail -n 5 "$log.err"; printf '```\n'; }
    echo
  } >> "$report"
}

{
  printf '# Evidence on %s%s\n\n' "$device" "${dry:+: dry run, sizes without meaning}"
  date -u '+%Y-%m-%d; ' | tr -d '\n'
  "$python" -c 'import platform, torch; gpu = torch.cuda.is_available()
print(torch.cuda.get_device_name() if gpu else platform.machine() + " CPU", "; torch ", torch.__version__, "; Python ", platform.python_version(), sep="")'
  echo "Code: $(git describe --always --dirty 2>/dev/null || echo unknown)."
  command -v nvidia-smi > /dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  echo
} > "$report"
part "Attacks" "$attacks_minutes" - scripts/bench_attacks.py --parts libraries --device "$device" "${attacks[@]}"
part "Supernet" "$supernet_minutes" - scripts/bench_supernet.py --device "$device" --out "$out/supernet" "${supernet[@]}"
part "Training step" 5 - scripts/bench_training.py --device "$device" "${training[@]}"
part "Search cost" "$cost_minutes" - scripts/bench_search.py "${recipe[@]}" "${cost[@]}"
part "Search against controls" "$evidence_minutes" "$networks/table.md" \
  scripts/evidence.py "${recipe[@]}" "${evidence[@]}" --reference "$out/networks"
echo "report: $report" >&2
exit "$failed"
