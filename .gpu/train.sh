# usage: train.sh MINUTES [probe]
export PYTHONUNBUFFERED=1
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site .whl/*.whl; export PYTHONPATH=/tmp/site
if [ "$2" = probe ]; then timeout 60 python3 -W ignore .gpu/probe2.py || exit 1; fi
mkdir -p /tmp/run/live
if [ ! -e /tmp/run/live/progress.json ] && [ -d .gpu/resume ]; then cp .gpu/resume/* /tmp/run/live/; fi
echo "starting at $(cat /tmp/run/live/progress.json 2>/dev/null)"
cd training && timeout 575 python3 -W ignore train.py --photos photos/photos.zip --out /tmp/run/live --minutes $1 --resume; echo "rc $?"
cd /tmp/run/live; cp live.safetensors model.safetensors variance.safetensors progress.json log.jsonl $OUT/; cp $(ls -t sheet-*.png | head -1) $OUT/sheet.png
grep psnr log.jsonl | tail -4; awk 'NR%12==0' log.jsonl | tail -30; tail -1 log.jsonl
