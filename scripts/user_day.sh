#!/usr/bin/env bash
# The day of a new user, from own images to an own study, as commands that are checked; then the mistakes of that day.
#   bash scripts/user_day.sh OUT        (everything is written under OUT, which has to be empty; minutes on one core)
# Every step says what it does, fails the script where something is not as claimed, and is in the table at the end.
# PYTHON is the interpreter, by default that of .venv as scripts/quickstart.sh makes it; nothing is downloaded.
set -euo pipefail
set -m # each background job is a process group that Ctrl-C (SIGINT) reaches, as in a terminal
here="$(cd "$(dirname "$0")/.." && pwd)"
out="$(mkdir -p "${1:?name a folder to write to}" && cd "$1" && pwd)"
[ -z "$(ls -A "$out")" ] || { echo "error: $out is not empty" >&2; exit 2; }
python="${PYTHON:-$here/.venv/bin/python}"
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=1
logs="$out/logs"
mkdir -p "$logs" "$out/work"
cd "$out/work" # a user's own folder: configs, Python files, results/
nas() { "$python" -m robust_nas "$@"; }

trap 'echo "FAILED in line $LINENO: $BASH_COMMAND" >&2' ERR
trap 'for job in $(jobs -p); do kill -- "-$job"; done' EXIT

names=() seconds=() began=0
step() {
  ended
  names+=("$1")
  began=$SECONDS
  echo "== $1: $2"
}
ended() { if [ "${#names[@]}" -gt "${#seconds[@]}" ]; then seconds+=("$((SECONDS - began))"); fi; }
fail() { echo "FAILED in '${names[-1]}': $*" >&2; exit 1; }
holds() { grep -q -E -e "$2" "$1" || { cat "$1" >&2; fail "$1 does not say: $2"; }; }
there() { for each in "$@"; do [ -s "$each" ] || fail "$each is not there"; done; }
has() { "$python" -c "import $1" 2> /dev/null; }
# say FILE COMMAND...: the command has to succeed; what it prints is kept.
say() {
  local log="$logs/$1"
  shift
  "$@" > "$log" 2>&1 || { cat "$log" >&2; fail "exit code $?: $*"; }
}
# An epoch of a training is a line of its metrics.
wait_for_epochs() {
  local lines=0
  for _ in $(seq 600); do
    lines="$(wc -l 2> /dev/null < "$1/metrics.jsonl" || true)"
    lines="${lines:-0}"
    if [ "$lines" -ge "$2" ]; then return; fi
    kill -0 "$3" 2> /dev/null || fail "process $3 ended before epoch $2 of $1"
    sleep 0.2
  done
  fail "no epoch $2 of $1 in two minutes"
}
interrupt() { # PID: Ctrl-C, which has to end it with 130
  local status=0
  kill -INT "-$1"
  wait "$1" || status=$?
  [ "$status" -eq 130 ] || fail "Ctrl-C ended it with $status, not 130"
}

step doctor "what is installed here"
say doctor.txt nas doctor
holds "$logs/doctor.txt" torch

step "own images" "ten folders of PNG files for training and for test"
cat > images.py <<'PY'
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
for number, (pixels, label) in enumerate(zip(digits.images, digits.target)):
    folder = Path("shapes", "test" if number % 4 == 0 else "train", f"kind-{label}")
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels * 255 / 16).astype("uint8")).save(folder / f"{number}.png")
PY
"$python" images.py
image="$(find shapes/test/kind-3 -name '*.png' | sort | head -1)"
there "$image"

step "own config" "what differs from the quickstart, in ten lines"
cat > mine.yaml <<'YAML'
base: quickstart
name: shapes
data: {name: image-folder, path: shapes, limit: 400}
checkpoint_seconds: 1
training:
  epochs: 60
  schedule: {name: piecewise, milestones: [50]} # the rate of an epoch does not depend on how many follow
  validate_from: 0
  validate_every: 1
evaluation: {suite: quick, images: 60}
YAML
say config.yaml nas train mine.yaml --print-config
holds "$logs/config.yaml" '^name: shapes'
say diff.txt nas config diff quickstart mine.yaml
holds "$logs/diff.txt" 'training.schedule'

step "dry run" "jobs, steps and an estimate of the time; nothing is written"
say dry-run.txt nas train mine.yaml -a wrn-10-1 --dry-run
holds "$logs/dry-run.txt" 'estimate'
[ ! -e results ] || fail "a dry run wrote results"

step "train and watch" "in the background: progress, list of runs, report and events while it trains"
loggers='loggers=[]'
if has tensorboard; then loggers='loggers=[tensorboard]'; fi
nas train mine.yaml -a wrn-10-1 "$loggers" -o results/first > "$logs/first.txt" 2>&1 &
training=$!
wait_for_epochs results/first 2 "$training"
say running.txt nas runs list
holds "$logs/running.txt" 'first .*running'
say report-running.txt nas report results/first
there results/first/report.html

step interrupt "Ctrl-C: exit code 130, and how to go on"
interrupt "$training"
holds "$logs/first.txt" 'epoch [0-9]+/60'
holds "$logs/first.txt" '--resume'
if has tensorboard; then there results/first/loggers/tensorboard/events*; fi
say unfinished.txt nas runs list
holds "$logs/unfinished.txt" 'first .*unfinished'

step resume "to its end, and with more epochs than it was started with"
say resumed.txt nas train --resume results/first training.epochs=64 --quiet
there results/first/model.safetensors results/first/result.json
[ "$(wc -l < results/first/metrics.jsonl)" -eq 64 ] || fail "not 64 epochs"

step "second training" "another loss"
say second.txt nas train mine.yaml -a wrn-10-1 training.epochs=10 training.loss=natural -o results/second --quiet
there results/second/model.safetensors

step "evaluate both" "worst case of a suite on test images"
say evaluation-first.txt nas evaluate results/first --quiet
say evaluation-second.txt nas evaluate results/second --quiet
holds "$logs/evaluation-first.txt" 'RELIABLE|INCONCLUSIVE'

step "a run to remove" "started, stopped and cleaned; what is finished stays"
nas train mine.yaml -a wrn-10-1 -o results/third > "$logs/third.txt" 2>&1 &
training=$!
wait_for_epochs results/third 1 "$training"
interrupt "$training"
say clean.txt nas runs clean --yes
[ ! -e results/third ] || fail "results/third is still there"
there results/first/model.safetensors results/second/model.safetensors

step compare "where the two differ, and accuracies paired by image"
say compared.txt nas runs compare results/first results/second
holds "$logs/compared.txt" 'training.loss'
say list.txt nas runs list --sort=-robust
holds "$logs/list.txt" 'second'
say show.txt nas runs show results/first
holds "$logs/show.txt" 'done'

step "report, export, predict" "one page; a form that runs elsewhere, checked; the class of one image"
say report.txt nas report results/first
there results/first/report.html
form=source
if has onnx && has onnxruntime && has onnxscript; then form=onnx; fi
say export.txt nas export results/first --format "$form" --check --images 50
there results/first/export/*
say predict.txt nas predict results/first "$image"
holds "$logs/predict.txt" 'kind-3'

step "own study" "two widths, one seed: plan, run, state, table"
cat > widths.yaml <<'YAML'
name: widths
base: wrn-10-1
space:
- {name: grid, axes: {widths.2: [16, 32]}}
seeds: 1
data: {name: image-folder, path: shapes, limit: 200}
training: {epochs: 2, loss: {name: natural}, validation_attack: {name: pgd, eps: 0.1, steps: 2}}
evaluation: {threat_model: {norm: linf, eps: 0.1}, attacks: [{attack: {name: pgd, steps: 5}}], findings: none, images: 30}
metrics: {attack: {steps: 2}, images: 30}
YAML
say plan.txt nas study plan widths.yaml
say study.txt nas study run widths.yaml --quiet
say status.txt nas study status results/widths
there results/widths/report.html results/widths/table.csv

step "own network" "a CNN from a DataLoader: own loop against an attack, judged; then an architecture on the same images"
cat > cnn.py <<'PY'
from torch import nn


def build():
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)]
    return nn.Sequential(*layers)
PY
cat > train_cnn.py <<'PY'
import torch
from cnn import build
from safetensors.torch import save_file
from torch.utils.data import DataLoader, TensorDataset

import robust_nas
from robust_nas.attacks import PGD

torch.manual_seed(0)
images = robust_nas.load_dataset(robust_nas.DataOptions(name="image-folder", path="shapes"))
train, test = (
    TensorDataset(part.pixels.float() / 255, part.labels.long()) for part in (images.train, images.test)
)
loader = DataLoader(train, batch_size=64, shuffle=True)
network, attack = build(), PGD(eps=0.1, steps=5, fold=False)
optimiser = torch.optim.Adam(network.parameters(), lr=0.005)
for epoch in range(8):
    for x, labels in loader:
        attacked = attack(network, x, labels, torch.Generator().manual_seed(epoch))
        loss = torch.nn.functional.cross_entropy(network(attacked), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
save_file(network.state_dict(), "cnn.safetensors")
threat_model = robust_nas.ThreatModel(norm="linf", eps=0.1)
found = robust_nas.evaluate(network, DataLoader(test, batch_size=64), threat_model, "quick", images=50)
print("own loop:", found.clean.accuracy, found.robust.accuracy, found.verdict)
assert found.clean.accuracy > 0.6, found.clean.accuracy

config = robust_nas.load_config("mine.yaml", ["training.epochs=2", "data.limit=200"])
folder = robust_nas.train(config, robust_nas.load_architecture("wrn-10-1"), "results/loader", data=loader, test=test)
found = robust_nas.evaluate(robust_nas.load_model(folder), test, threat_model, "quick", images=50)
print("architecture:", found.clean.accuracy, found.robust.accuracy, found.verdict)
PY
say cnn.txt "$python" train_cnn.py
holds "$logs/cnn.txt" 'own loop: 0'
holds "$logs/cnn.txt" 'architecture: 0'
there cnn.safetensors results/loader/model.safetensors
say cnn-evaluation.txt nas evaluate --module cnn.py:build --weights cnn.safetensors --data shapes --eps 0.1 \
  --suite quick --images 50 --out results/cnn --quiet
there results/cnn/report.html

# refused WHAT PATTERN COMMAND...: exit code 1 or 2, a message with the pattern and no traceback, and nothing left behind.
mistakes=0
refused() {
  local what="$1" pattern="$2" status=0 log before
  shift 2
  mistakes=$((mistakes + 1))
  log="$logs/mistake-$mistakes.txt"
  before="$(find . | sort)"
  "$@" > "$log" 2>&1 || status=$?
  if [ "$status" -ne 1 ] && [ "$status" -ne 2 ]; then cat "$log" >&2; fail "$what: exit code $status"; fi
  holds "$log" "$pattern"
  if grep -q Traceback "$log"; then cat "$log" >&2; fail "$what: a traceback"; fi
  diff <(echo "$before") <(find . | sort) >&2 || fail "$what: left something behind"
  echo "   $what: $(grep -E -m 1 -e "$pattern" "$log" | cut -c 1-150)"
}

step mistakes "one for each step above: a clear message, and nothing left behind"
sed 's/^training:/trainings:/' mine.yaml > wrong-key.yaml
sed 's/path: shapes/path: shape/' mine.yaml > wrong-folder.yaml
sed 's/^base: .*/base: quickstarts/' mine.yaml > wrong-base.yaml
sed 's/widths.2/width.2/' widths.yaml > wrong-axis.yaml
echo "x = 1" > no-network.py
echo "not an image" > image.png
cp -r shapes others
find others -name '*.png' -path '*/train/*' | sort | sed -n 1,20p | xargs rm
refused "wrong key in a config" 'training' nas train wrong-key.yaml -a wrn-10-1
refused "wrong base" 'quickstarts' nas train wrong-base.yaml -a wrn-10-1
refused "wrong key in an override" 'epochs' nas train mine.yaml -a wrn-10-1 training.epoch=3
refused "wrong folder of images" 'shape' nas train wrong-folder.yaml -a wrn-10-1
refused "wrong folder in a dry run" 'shape' nas train wrong-folder.yaml -a wrn-10-1 --dry-run
refused "no architecture" 'architecture' nas train mine.yaml
refused "wrong architecture" 'wrn-10' nas train mine.yaml -a wrn-10-x
refused "wrong loss" 'trade' nas train mine.yaml -a wrn-10-1 training.loss=trade
refused "folder that exists" '--resume' nas train mine.yaml -a wrn-10-1 -o results/first
refused "resumed with another rate" 'learning_rate' nas train --resume results/first training.learning_rate=0.5
refused "fewer epochs" 'epochs' nas train --resume results/first training.epochs=3
refused "resumed with nothing there" 'results/firts' nas train --resume results/firts
refused "evaluated: no model" 'results/firts' nas evaluate results/firts
refused "evaluated: an eps of 8" '8/255' nas evaluate results/first --eps 8 --overwrite
refused "evaluated: wrong suite" 'quick' nas evaluate results/first --suite quik --overwrite
mv shapes kept && mv others shapes # the same place, other images
refused "evaluated: other images" 'other-data' nas evaluate results/first -o results/other
mv shapes others && mv kept shapes
refused "evaluated: other dataset" 'fashion-mnist' nas evaluate results/first --recipe fashion -o results/other
refused "compared: one run" 'two' nas runs compare results/first
refused "compared: no run" 'results/firts' nas runs compare results/first results/firts
refused "shown: no run" 'results/firts' nas runs show results/firts
refused "report: no run" 'results/firts' nas report results/firts
refused "export: wrong form" 'onnx' nas export results/first --format onxx
refused "predict: no image" 'absent.png' nas predict results/first absent.png
refused "predict: no image file" 'image.png' nas predict results/first image.png
refused "study: wrong axis" 'width.2' nas study run wrong-axis.yaml -o results/axes
refused "study: no file" 'width.yaml' nas study run width.yaml
refused "module: no such function" 'build' nas evaluate --module no-network.py:build --data shapes --eps 0.1 -o results/module
refused "module: no weights" 'cnn.pt' nas evaluate --module cnn.py:build --weights cnn.pt --data shapes --eps 0.1 -o results/module

ended
trap - ERR
echo
printf '%-28s %s\n' step seconds
for number in "${!names[@]}"; do printf '%-28s %7d\n' "${names[number]}" "${seconds[number]}"; done
printf '%-28s %7d   %d mistakes refused; logs in %s\n' all "$SECONDS" "$mistakes" "$logs"
