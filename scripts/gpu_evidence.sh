#!/usr/bin/env bash
# Measures on a GPU what docs/benchmarks/index.md marks missing, within 12 minutes, the most wanted first: a training step, what
# a search costs, the supernet, the attacks; where more time is given, a search too, and its network next to a random one
# of equal MACs and DARTS_V2, all trained by one recipe and attacked by the cascade.
#
#   scripts/gpu_evidence.sh [FOLDER] [options] [recipe overrides]    # CIFAR-10: FOLDER/train/<class>/*.jpg, FOLDER/test/...
#   scripts/gpu_evidence.sh --dry-run                                # tiny, on the CPU, with five times the limits
#
# Options: --out DIR (results/gpu-evidence)  --search-epochs N (10)  --train-epochs N (20)  --seeds "0 1" (0)  --images N (1000)
# BUDGET_S (720): seconds for all of it, the set-up included. Every part has a limit of its own and writes DIR/<part>.md
# when it ends; DIR/report.md holds all so far. A part that fails or runs out of its time does not stop the others, and
# makes the exit status 1; one that the budget has no room for is cut short or skipped, which the report says. Both searches are begun where 20 minutes
# are left, go on for all that there is, and continue where they were when called again: BUDGET_S=25000 for most of a day's work.
# Needs: a GPU that torch sees, Python 3.11 or newer, a network for the set-up (once), 10 GB of disk. Without FOLDER the parts
# on CIFAR-10 are left out, without the package of Fashion-MNIST that on it.
# PYTHON chooses the Python of the set-up. EVIDENCE_PYTHON=/path/to/python skips the set-up and uses that one.
# The recipe is shortened from dsara-cifar10: 8 cells, 36 channels, batch 128, cosine schedule, and FGSM in the search
# (overrides such as network.cells=20 come last and win).
set -uo pipefail
start="$PWD"
cd "$(dirname "$0")/.."

dry="" folder="" out="" overrides=() search_epochs=10 train_epochs=20 seeds=0 images=1000
while [ "$#" -gt 0 ]; do
  case "$1" in
    --dry-run) dry=yes; shift ;;
    --out|--search-epochs|--train-epochs|--seeds|--images)
      [ "$#" -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
      name="${1#--}"; printf -v "${name//-/_}" '%s' "$2"; shift 2 ;;
    -h|--help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    -*) echo "error: unknown option $1; --help lists them" >&2; exit 2 ;;
    *=*) overrides+=("$1"); shift ;;
    *) folder="$1"; shift ;;
  esac
done
budget="${BUDGET_S:-720}" slack=1
[ -z "$dry" ] || { budget="${BUDGET_S:-3600}" slack=5; } # a CPU may be a busy one
[[ "$budget" =~ ^[0-9]+$ ]] || { echo "error: BUDGET_S: got '$budget'; whole seconds are needed" >&2; exit 2; }
out="${out:-results/gpu-evidence${dry:+-dry-run}}"
[[ "$out" = /* || "$out" = results/* ]] || out="$start/$out"
[[ -z "$folder" || "$folder" = /* ]] || folder="$start/$folder"
if [ -n "$folder" ] && [ ! -d "$folder/train" ]; then
  echo "error: '$folder' has no folder train; give the image folder of CIFAR-10, or none" >&2
  exit 2
fi

if [ -z "${EVIDENCE_PYTHON:-}" ]; then
  (set -e; source scripts/setup.sh; setup dev) || { echo "error: the set-up failed" >&2; exit 1; }
fi
source scripts/allocator.sh
python="${EVIDENCE_PYTHON:-.venv/bin/python}"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ -z "$dry" ] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "error: this torch sees no GPU; --dry-run needs none" >&2
  exit 2
fi
without=(--without)
"$python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("nni") is None)' || without+=(NNI)
[ -z "$dry" ] || without+=("plain, NCHW" "plain, folded")
[ "${#without[@]}" -gt 1 ] || without=()

if [ -n "$dry" ]; then
  device=cpu needed=60
  training=(--channels 4 --cells 4 --batch 4 --rounds 1) wide=("${training[@]}")
  size=(--quick --rounds 1) attacks=(--width 4 --batch 4 --rounds 1)
  fashion=(fashion search.channels=2 search.batch_size=8) steps=(--steps 1)
  recipe=(quickstart name=gpu-evidence-dry-run-networks data.limit=300 search.epochs=2 search.stage1_epochs=1
    search.batch_size=16 search.channels=2 network.channels=4 training.epochs=2 training.validate_from=1
    training.schedule.warmup_epochs=0)
  evidence=(--images 8 --seeds 0)
  published=("${recipe[@]}" search.controls=1 evaluation.images=8)
else
  device=cuda needed=1200
  training=(--channels 16 --cells 8 --batch 32 --rounds 5) wide=(--channels 36 --cells 8 --batch 128 --rounds 5)
  size=() attacks=(--width 64 --batch 128)
  fashion=(fashion device=cuda) steps=(--steps 12)
  published=(dsara-cifar10 name=gpu-evidence-networks data.name=image-folder "data.path=$folder"
    "search.epochs=$search_epochs" "search.stage1_epochs=$((search_epochs * 2 / 5))" network.cells=8 network.channels=36
    "training.epochs=$train_epochs" training.batch_size=128 "training.schedule={name: cosine, warmup_epochs: 1}"
    "training.validate_from=$((train_epochs / 2))" training.validate_every=2 training.validation_images=1000)
  recipe=("${published[@]}" search.order=1 "search.attack={name: fgsm-rs, eps: 8/255}")
  published+=(search.controls=3 "evaluation.images=$images")
  read -ra list <<< "$seeds"
  evidence=(--images "$images" --seeds "${list[@]}")
fi
recipe+=(${overrides[@]+"${overrides[@]}"})
published+=(${overrides[@]+"${overrides[@]}"})
networks="results/$(printf '%s\n' "${recipe[@]}" | sed -n 's/^name=//p' | tail -1)"
cifar="${folder:-$dry}" clothes=""  # what is there to measure on
[ ! -d /usr/share/datasets/fashion-mnist ] || clothes=yes
mkdir -p "$out"
report="$out/report.md" failed=0 number=0
rm -f "$out"/[0-9]*.md

# entry TITLE: writes the part's own file from standard input, and adds it to the report.
entry() {
  number=$((number + 1))
  local file
  file="$out/$(printf '%02d' "$number")-$(tr -cs 'a-z0-9\n' - <<< "${1,,}").md"
  { printf '## %s\n\n' "$1"; cat; echo; } > "$file"
  cat "$file" >> "$report"
}

# skip TITLE REASON: says that a part is left out.
skip() {
  echo "$1: skipped, $2" >&2
  entry "$1" <<< "**Skipped**: $2."
}

# part TITLE NEEDED LIMIT TABLE COMMAND...: runs a command for at most LIMIT seconds, where NEEDED are left of the budget;
# its outcome and TABLE (- for what it prints) are the part's file.
part() {
  local title="$1" needed="$2" limit="$3" table="$4" log rc began="$SECONDS" outcome=done left cut=""
  shift 4
  limit=$((limit * slack))
  left=$((budget - SECONDS - 10)) # 10 for what does not end when it is asked to
  if [ "$left" -lt "$needed" ]; then
    skip "$title" "it needs $needed s and $((left > 0 ? left : 0)) are left of the budget of $budget s"
    return
  fi
  log="$out/$(tr -cs 'a-z0-9\n' - <<< "${title,,}").log"
  [ "$limit" -le "$left" ] || { limit="$left" cut=yes; }
  echo "$title: at most $limit s; log: $log" >&2
  timeout --kill-after=10 "$limit" "$python" "$@" > "$log" 2> "$log.err"
  rc=$?
  if [ "$rc" -eq 124 ] || [ "$rc" -eq 137 ]; then
    outcome="OUT OF TIME after $limit s${cut:+, the rest of the budget}"
    [ -n "$cut" ] || failed=1
  elif [ "$rc" -ne 0 ]; then
    failed=1 outcome="FAILED, exit status $rc"
  fi
  echo "  $outcome, $((SECONDS - began)) s" >&2
  entry "$title" < <(
    printf '`python %s`: %s, %d s\n\n' "$*" "$outcome" $((SECONDS - began))
    [ "$table" = - ] && table="$log"
    if [ -s "$table" ]; then sed 's/^# /### /' "$table"; else echo "**Missing.**"; fi
    [ "$rc" -eq 0 ] || { printf '\n```\n'; tail -n 5 "$log.err"; printf '```\n'; }
  )
}

{
  printf '# Evidence on %s%s\n\n' "$device" "${dry:+: dry run, sizes without meaning}"
  date -u '+%Y-%m-%d; ' | tr -d '\n'
  "$python" -c 'import platform, torch; from robust_nas.environment import allocator; gpu = torch.cuda.is_available()
print(torch.cuda.get_device_name() if gpu else platform.machine() + " CPU", "; torch ", torch.__version__, "; Python ", platform.python_version(), "; allocator ", allocator(), sep="")'
  echo "Code: $(git describe --always --dirty 2>/dev/null || echo unknown). Budget: $budget s."
  command -v nvidia-smi > /dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  echo
} > "$report"
part "Training step" 30 90 - scripts/bench_training.py --methods none --device "$device" "${training[@]}"
if [ -n "$clothes" ]; then
  part "Search cost, Fashion-MNIST" 30 120 - scripts/bench_search.py "${fashion[@]}" "${steps[@]}"
else
  skip "Search cost, Fashion-MNIST" "its images are not here (Debian's package dataset-fashion-mnist)"
fi
# supernet TITLE LIMIT PART: one part of its benchmark.
supernet() {
  part "$1" 30 "$2" "$out/supernet-$3/table.md" scripts/bench_supernet.py --device "$device" --parts "$3" \
    --out "$out/supernet-$3" ${without[@]+"${without[@]}"} ${size[@]+"${size[@]}"}
}
supernet "Supernet" 180 steps
part "Attacks" 30 90 - scripts/bench_attacks.py --parts libraries --device "$device" "${attacks[@]}"
if [ -n "$cifar" ]; then
  part "Search cost" 30 120 - scripts/bench_search.py "${recipe[@]}" "${steps[@]}"
else
  skip "Search cost" "no image folder of CIFAR-10 was given"
fi
part "Training step, wide" 30 90 - scripts/bench_training.py --methods none --device "$device" "${wide[@]}"
supernet "Supernet, memory" 180 memory
supernet "Supernet, other sizes" 180 grid
if [ -n "$cifar" ]; then
  search="$out/published-search"
  [ ! -f "$search/config.yaml" ] || published=(--resume "$search")
  part "Published search" "$needed" "$((budget / 2))" - -m robust_nas search "${published[@]}" --seeds 2 --out "$search"
else
  skip "Published search" "no image folder of CIFAR-10 was given"
fi
if [ -n "$cifar" ]; then
  part "Search against controls" "$needed" "$budget" "$networks/table.md" \
    scripts/evidence.py "${recipe[@]}" "${evidence[@]}" --reference "$out/networks"
else
  skip "Search against controls" "no image folder of CIFAR-10 was given"
fi
echo "report: $report, $SECONDS s" >&2
exit "$failed"
