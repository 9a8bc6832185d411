#!/usr/bin/env bash
# Takes screenshots of reports in headless Chromium, 400 and 1400 pixels wide, light and dark, to be looked at.
#   bash scripts/check_reports.sh OUT [FOLDER...]
# Folders of runs and studies are taken; without any, small ones of each verb are made in OUT/runs (minutes).
# Chromium is not part of the toolkit: `apt-get install chromium`, or CHROMIUM=path. PYTHON is the interpreter.
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
out="$(mkdir -p "${1:?name a folder for the screenshots}" && cd "$1" && pwd)"
shift
python="${PYTHON:-$here/.venv/bin/python}"
chromium="${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome)}"
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
nas() { "$python" -m robust_nas "$@"; }

small=(data.limit=300 search.epochs=4 search.stage1_epochs=2 search.channels=4 network.channels=4 training.epochs=2
  training.validate_from=0 training.validate_every=1 evaluation.images=20)
if [ "$#" -eq 0 ]; then
  runs="$out/runs"
  quiet=(--quiet --resume)
  nas search quickstart "${small[@]}" --out "$runs/search" "${quiet[@]}"
  nas train quickstart "${small[@]}" --architecture "$runs/search" --out "$runs/train" "${quiet[@]}"
  nas evaluate "$runs/train" --out "$runs/evaluate" "${quiet[@]}"
  nas defend "$runs/train" --with blur --out "$runs/defend" "${quiet[@]}"
  nas compress "$runs/train" --ratio 1.5 --out "$runs/compress" "${quiet[@]}"
  nas run quickstart "${small[@]}" compression=null --out "$runs/run" "${quiet[@]}"
  nas compare quickstart "${small[@]}" -a wrn-10-1 --losses natural --out "$runs/compare" "${quiet[@]}"
  set -- "$runs"/*
fi

for folder in "$@"; do
  if ! page="$(nas report "$folder" --quiet)"; then echo "no report: $folder" >&2; continue; fi
  for width in 400 1400; do
    for scheme in 1:light 0:dark; do
      picture="$out/$(basename "$folder")-$width-${scheme#*:}.png"
      # The height is that of the first screens: a whole report is thousands of pixels high.
      "$chromium" --headless --no-sandbox --disable-gpu --hide-scrollbars --force-device-scale-factor=1 \
        --blink-settings=preferredColorScheme="${scheme%%:*}" --window-size="$width,${HEIGHT:-4000}" \
        --screenshot="$picture" "file://$page" 2>/dev/null >/dev/null
      echo "$picture"
    done
  done
done
