#!/bin/sh
# The whole recipe, from the photographs to the weights in `runs/average.safetensors`: 43.4 minutes on one H100, and what the download
# takes. Each run goes on from what the last one left, so a recipe that was interrupted can be started again; or say which steps,
# as in `sh recipe.sh finetune average`.
set -eu
cd "$(dirname "$0")"

photos() { [ -e photos/photos.zip ] || sh fetch.sh; }
first() {
  for run in 1 2 3; do
    [ -e "runs/live/run-$run" ] && continue
    python train.py --minutes 8.7 --resume
    touch "runs/live/run-$run"
  done
}
finetune() {
  [ -e runs/fine/done ] || { python train.py --profile finetune --weights runs/live/live.safetensors --out runs/fine --minutes 8.7 && touch runs/fine/done; }
  [ -e runs/oil/done ] || { python train.py --profile finetune-oil --weights runs/fine/live.safetensors --out runs/oil --minutes 8.7 --seed 2027 && touch runs/oil/done; }
}
average() { python average.py runs/live/live.safetensors runs/oil/live.safetensors runs/average.safetensors; }

for step in ${*:-photos first finetune average}; do "$step"; done
