#!/usr/bin/env bash
# A run on one node with eight GPUs, or, submitted to SLURM, on one or several of them.
#
#   DATA=hiyouga/geometry3k WORKDIR=runs/7b ./experiments/pods/gpu_node.sh
#   DATA=hiyouga/geometry3k WORKDIR=/shared/7b sbatch --nodes=2 ./experiments/pods/gpu_node.sh
#
# Rerun the same command to resume a stopped run. SLURM sends SIGTERM two minutes before the time
# is over: the step in progress is saved, and the job is queued again, but not if the run ended or
# failed. Flags go to sejax.main, whose exit status is the job's.
#SBATCH --job-name=sejax
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -euo pipefail

DATA=${DATA:?set DATA, the folder of the parquet files or their name on the hub}
WORKDIR=${WORKDIR:?set WORKDIR; several nodes must share it}
CONFIG=${CONFIG:-configs/geometry3k_qwen2_5_vl_7b.py}
PYTHON=${PYTHON:-.venv/bin/python}

COMMAND=(
  "$PYTHON" -m sejax.main
  "--config=$CONFIG"
  --config.mesh.fsdp=-1
  "--config.train.micro_batch_size=$((8 * ${SLURM_NNODES:-1}))"
  --config.model.logits_chunk=2048
  "--config.data.path=$DATA"
  "--workdir=$WORKDIR"
)

if [ -z "${SLURM_JOB_ID:-}" ]; then
  exec "${COMMAND[@]}" "$@"  # One process for all GPUs.
fi
# One process for each GPU, which find each other by SLURM's variables.
status=0
srun "${COMMAND[@]}" --distributed "$@" || status=$?
if [ "$status" = 143 ]; then  # SIGTERM stopped it.
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
