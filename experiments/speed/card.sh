#!/usr/bin/env bash
# What one GPU of 80 GB or more does, in at most eight minutes, and in one JSON line at the end.
#
#   PYTHON=.venv/bin/python ./experiments/speed/card.sh [--dry-run]
#
# --dry-run runs the same parts on the CPU, as small as can be, to show that all of them run. A part
# that fails or takes too long is named in the line's `failed`, and the exit status is 1. Nothing is
# written but in a temporary folder, which takes up to 20 GB and is removed at the end.
set -euo pipefail

dry_run=()
case "$*" in
  "") ;;
  --dry-run) dry_run=(--dry_run) ;;
  *)
    echo "card.sh takes --dry-run or nothing, not $*" >&2
    exit 2
    ;;
esac

python=${PYTHON:-python}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
folder=$(mktemp -d)
running=
names=()

# Also after Ctrl-C: a part's process group is its own, so it has to be told.
clean_up() {
  if [ -n "$running" ]; then
    kill "$running" 2>/dev/null || true
    wait "$running" 2>/dev/null || true
  fi
  rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export TMPDIR=$folder
# Some programs are those of another part.
export JAX_COMPILATION_CACHE_DIR=$folder/compiled

# part NAME SECOND COMMAND...: runs a part until that second since the start of this script at the
# latest, so that what one part leaves of its time is for the next ones.
part() {
  local name=$1 left=$(($2 - SECONDS)) status=0
  shift 2
  if [ "${#dry_run[@]}" != 0 ]; then
    left=600 # a machine of CI may be slow
  fi
  names+=("$name")
  echo "--- $name, for up to $left s"
  timeout --kill-after=5 "$left" "$@" >"$folder/$name.log" 2>&1 </dev/null &
  running=$!
  wait "$running" || status=$?
  running=
  echo "$status" >"$folder/$name.status"
  tail -n 20 "$folder/$name.log"
}

if [ "${#dry_run[@]}" = 0 ]; then
  export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0}
  size=(--size=3b --repeats=1)
  attention=(--size=3b --repeats=10)
  # Decoding is compiled anew for every 64 tokens that rows grow by, which takes longer than to run.
  sampling=(--tokens=256)
  train=(--tokens=256 --verdict=128)
  all_weights=(--min_memory_gib=94) # as planned for an H100
  rank=64
else
  export JAX_PLATFORMS=cpu
  # Most of the time is compiling.
  export JAX_DISABLE_MOST_OPTIMIZATIONS=1 JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
  size=(--size=dry --repeats=1)
  attention=("${size[@]}")
  sampling=() train=() all_weights=()
  rank=4
fi

timeout --kill-after=5 60 "$python" "$here/card.py" device "${dry_run[@]}" >"$folder/device.log"
echo 0 >"$folder/device.status"
names+=(device)
cat "$folder/device.log"

part sampling 110 "$python" "$here/sampling.py" "${size[@]}" --parts=prefill,full "${sampling[@]}"
part model 150 "$python" "$here/model.py" "${size[@]}" --only_shared
part attention 195 "$python" "$here/attention.py" "${attention[@]}"
part main_job 260 "$python" "$here/card.py" main_job "--run_dir=$folder/main_job" "${dry_run[@]}"
part train_lora 375 "$python" "$here/train.py" "${size[@]}" --nojudge_repeated "--rank=$rank" \
  "${train[@]}"
part train_all 465 "$python" "$here/train.py" "${size[@]}" --nojudge_repeated \
  "${all_weights[@]}" "${train[@]}"

echo "--- all in $SECONDS s"
"$python" "$here/card.py" merge "--folder=$folder" "${names[@]}"
