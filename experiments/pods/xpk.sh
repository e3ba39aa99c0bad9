#!/usr/bin/env bash
# The released 7B run as a workload of a GKE cluster with 64 chips of v5e, which xpk has made:
#
#   pip install xpk
#   xpk cluster create --cluster=NAME --tpu-type=v5litepod-64 --num-slices=1 --spot
#   CLUSTER=NAME BUCKET=my-bucket ./experiments/pods/xpk.sh
#
# Given from the project's root. GKE begins it again after a preemption, and it goes on from its last
# checkpoint. Flags go to xpk; `xpk workload list` and `delete` show and end it.
set -euo pipefail

CLUSTER=${CLUSTER:?set CLUSTER, made by xpk cluster create}
BUCKET=${BUCKET:?set BUCKET, for checkpoints and logs}
CONFIG=${CONFIG:-configs/geometry3k_qwen2_5_vl_7b.py}
RUN=${RUN:-geometry3k_7b}

RUN_IT=(
  python -m sejax.main --distributed
  "--config=$CONFIG"
  --config.mesh.fsdp=-1
  --config.mesh.tensor=4
  --config.train.micro_batch_size=16
  --config.model.logits_chunk=2048
  --config.data.path=hiyouga/geometry3k
  "--workdir=gs://$BUCKET/runs/$RUN"
)

xpk workload create \
  --cluster="$CLUSTER" \
  --workload="${RUN//_/-}" \
  --tpu-type=v5litepod-64 \
  --base-docker-image=python:3.12 \
  --script-dir=. \
  --max-restarts=100 \
  --restart-on-exit-codes=3,134,137,143 \
  --command="pip install -q '.[tpu,gcs]' && ${RUN_IT[*]}" \
  "$@"
