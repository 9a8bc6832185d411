#!/usr/bin/env bash
# Takes screenshots of reports in headless Chromium, 400 and 1400 pixels wide, light and dark, to be looked at.
#   bash scripts/check_reports.sh OUT [FOLDER...]
# Folders of runs and studies are taken; without any, a small one of each verb is made in OUT/runs (minutes).
# PRINT=yes adds the printed pages (Poppler's pdftoppm). Chromium is not part of the toolkit: `apt-get install chromium
# poppler-utils`, or CHROMIUM=path. PYTHON is the interpreter.
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
out="$(mkdir -p "${1:?name a folder for the screenshots}" && cd "$1" && pwd)"
shift
python="${PYTHON:-$here/.venv/bin/python}"
chromium="${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome)}"
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
nas() { "$python" -m robust_nas "$@"; }

data=(data.limit=600)
recipe=("${data[@]}" training.epochs=6 training.validate_from=0 training.validate_every=1
  training.schedule.warmup_epochs=1 evaluation.images=40)
small=("${recipe[@]}" search.epochs=4 search.stage1_epochs=2 search.channels=4 network.channels=4 workers=1)
short=(compression.cstar.ratios=[2] compression.cstar.epochs=1 compression.cstar.finetune_epochs=1)

make() { # makes a folder of this name by these words; one that is there is kept
  if [ ! -e "$runs/$1" ]; then echo "$1" >&2; nas "${@:2}" --out "$runs/$1" --quiet >/dev/null; fi
}

make_runs() {
  make search search quickstart "${small[@]}" data.limit=300
  make sampled-search search quickstart "${data[@]}" --strategy random search.evaluations=4 network.channels=4
  make train train quickstart "${recipe[@]}" --architecture wrn-10-1
  make evaluate evaluate "$runs/train"
  make defend defend "$runs/train" --with blur
  make evaluate-defended evaluate "$runs/defend/model" evaluation.images=40
  make defend-random defend "$runs/train" --with rse
  make evaluate-random evaluate "$runs/defend-random/model" evaluation.images=20 --suite rand
  make attack-run attack run pgd "$runs/train" steps=10 --images 40
  make attack-train attack train "$runs/train" method.epochs=3
  make compress compress "$runs/train" --method cstar --ratio 1.5,2 "${short[@]}"
  make distill distill quickstart "${data[@]}" method.per_class=1 method.steps=20
  make rank rank nas-bench-201 --sample 5 data.name=digits "${data[@]}"
  make run run quickstart "${small[@]}" "${short[@]}"
  make compare compare quickstart "${recipe[@]}" -a wrn-10-1 --losses natural,trades --seeds 2
  make study study run huang-width-last --size ci "${data[@]}" training.epochs=2 seeds=2 evaluation.images=40 \
    training.schedule.warmup_epochs=1
  "$python" - "$runs/table.csv" <<'TABLE'
import sys
from itertools import product
from robust_nas.spaces.nas_bench_201 import string_of
lines = ["arch_id,arch_str,robust,ms"]
for number, code in enumerate(product("023", repeat=4)):  # of a made-up accuracy
    good = 0.3 + 0.1 * sum(c == "3" for c in code) / 4 + 0.05 * (code[0] == "2") + number % 7 / 700
    lines.append(f"{number},{string_of('3' + ''.join(code) + '3')},{good:.4f},{3 + number % 11}")
open(sys.argv[1], "w").write("\n".join(lines) + "\n")
TABLE
  ways=(--table "$runs/table.csv" --strategies random,evolution,local-search --evaluations 5,10,20,40 --runs 10)
  make benchmark benchmark strategies "${ways[@]}" --column robust
  make benchmark-two benchmark strategies "${ways[@]}" --objectives robust,ms:min
}

if [ "$#" -eq 0 ]; then
  runs="$out/runs"
  mkdir -p "$runs"
  make_runs
  set -- "$runs"/*/
fi

for folder in "$@"; do
  if ! page="$(nas report "$folder" --quiet)"; then echo "no report: $folder" >&2; continue; fi
  page="$(realpath "$page")"
  name="$(basename "$folder")"
  for width in 400 1400; do
    for scheme in 1:light 0:dark; do
      picture="$out/$name-$width-${scheme#*:}.png"
      # The height is that of the first screens: a whole report is thousands of pixels high.
      "$chromium" --headless --no-sandbox --disable-gpu --hide-scrollbars --force-device-scale-factor=1 \
        --blink-settings=preferredColorScheme="${scheme%%:*}" --window-size="$width,${HEIGHT:-4000}" \
        --screenshot="$picture" "file://$page" 2>/dev/null >/dev/null
      [ -s "$picture" ] || { echo "error: Chromium wrote no $picture" >&2; exit 1; }
      echo "$picture"
    done
  done
  if [ -n "${PRINT:-}" ]; then
    "$chromium" --headless --no-sandbox --disable-gpu --no-pdf-header-footer --print-to-pdf="$out/$name.pdf" \
      "file://$page" 2>/dev/null >/dev/null
    pdftoppm -r 60 -png "$out/$name.pdf" "$out/$name-print"
    echo "$out/$name.pdf"
  fi
done
