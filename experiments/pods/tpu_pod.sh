#!/usr/bin/env bash
# A run on a TPU pod slice, from its creation to its deletion.
#
#   ZONE=us-west4-a BUCKET=my-bucket ./experiments/pods/tpu_pod.sh create
#   ... install, run, logs, stop, keep (after each preemption begins again and goes on), delete
#
# All hosts see the workdir and the data in the bucket, mounted by gcsfuse; a run that is started
# again in its workdir goes on from its last checkpoint. Flags after the verb go to sejax.main.
set -euo pipefail

NAME=${NAME:-sejax}
ZONE=${ZONE:?set ZONE, such as us-west4-a}
BUCKET=${BUCKET:?set BUCKET, for data, checkpoints and logs}
TYPE=${TYPE:-v5litepod-64}
VERSION=${VERSION:-v2-alpha-tpuv5-lite}
CONFIG=${CONFIG:-configs/geometry3k_qwen2_5_vl_7b.py}
RUN=${RUN:-geometry3k_7b}

# What fits 64 chips of v5e.
FLAGS=(
  --distributed
  --config.mesh.fsdp=-1
  --config.mesh.tensor=4
  --config.train.micro_batch_size=16
  --config.model.logits_chunk=2048
  "--config.data.path=bucket/geometry3k"
  "--workdir=bucket/runs/$RUN"
)

# Ubuntu's Python is older than 3.11, and has no gcsfuse. Checkpoints are renamed when complete,
# which buckets allow for folders only if asked to.
# shellcheck disable=SC2016  # It is expanded over there.
SETUP='set -e
if ! command -v gcsfuse >/dev/null; then
  list="deb https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main"
  echo "$list" | sudo tee /etc/apt/sources.list.d/gcsfuse.list
  curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo apt-key add -
fi
sudo apt-get update -q
sudo apt-get install -qy gcsfuse python3.11 python3.11-venv
mkdir -p sejax && tar -xzf sejax.tar.gz -C sejax && cd sejax
python3.11 -m venv .venv && .venv/bin/pip install -q ".[tpu]"
mkdir -p bucket
mountpoint -q bucket || gcsfuse --implicit-dirs --rename-dir-limit=100000'

on_all() {
  gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"
}

# ACTIVE, SUSPENDED, WAITING_FOR_RESOURCES ..., or MISSING where there is none of this name.
state() {
  gcloud compute tpus queued-resources list --zone="$ZONE" --filter="name ~ /$NAME\$" \
    --format='value(state.state)' | grep . || echo MISSING
}

create() {
  gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" --zone="$ZONE" \
    --accelerator-type="$TYPE" --runtime-version="$VERSION" --spot
  while true; do
    case "$(state)" in
      ACTIVE) return 0 ;;
      FAILED | SUSPENDED | MISSING) return 1 ;;
      *) sleep 30 ;;
    esac
  done
}

delete() {
  gcloud compute tpus queued-resources delete "$NAME" --zone="$ZONE" --force --quiet
}

install() {
  tar --exclude=.venv --exclude=runs --exclude=.git -czf /tmp/sejax.tar.gz .
  gcloud compute tpus tpu-vm scp /tmp/sejax.tar.gz "$NAME": --zone="$ZONE" --worker=all
  on_all "$SETUP '$BUCKET' bucket"
}

run() {
  on_all "cd sejax && nohup .venv/bin/python -m sejax.main --config=$CONFIG ${FLAGS[*]} $* \
    > train.log 2>&1 < /dev/null &"
}

logs() {
  gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=0 \
    --command="tail -f sejax/train.log"
}

# SIGTERM: the step in progress ends, and is saved. The bracket keeps pkill from finding itself.
stop() {
  on_all "pkill -TERM -f '[s]ejax.main' || true"
}

done_already() {
  gcloud storage ls "gs://$BUCKET/runs/$RUN/summary.json" >/dev/null 2>&1
}

# Goes on after each preemption, until the run has left its summary.
keep() {
  local now
  until done_already; do
    now=$(state)
    case "$now" in
      ACTIVE) sleep 60 ;;
      SUSPENDED | FAILED) delete ;;
      MISSING)
        create || continue
        install
        run "$@"
        ;;
      *) sleep 60 ;;
    esac
  done
}

verb=${1:?say create, install, run, logs, stop, keep or delete}
shift
case "$verb" in
  create | install | run | logs | stop | keep | delete) "$verb" "$@" ;;
  *)
    echo "tpu_pod.sh: $verb is none of create, install, run, logs, stop, keep, delete" >&2
    exit 2
    ;;
esac
