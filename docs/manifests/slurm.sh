#!/bin/bash
# Trains on 4 hosts of 8 GPUs under Slurm, a process for each GPU:
#   sbatch docs/manifests/slurm.sh --config=configs/gpt2.py:124m --workdir=/shared/runs/gpt2
# The folder of this project and the work folder must be on a file system that all hosts share.
#SBATCH --job-name=atelier
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=atelier-%j.log
#SBATCH --open-mode=append
# SIGTERM to all processes 5 minutes before the time is over: each saves the same step and ends
# with 143.
#SBATCH --signal=TERM@300
#SBATCH --requeue
set -uo pipefail

# A process that has lost another one ends by itself; --wait is for one that hangs.
srun --kill-on-bad-exit=0 --wait=120 --label \
  .venv/bin/python train.py --distributed "$@"
code=$?

# 0: finished. 2: a mistake, named by a sentence in the log, which starting again does not mend.
if [ "$code" -ne 0 ] && [ "$code" -ne 2 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 100 ]; then
  echo "exit code $code: starting again from the last checkpoint"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
