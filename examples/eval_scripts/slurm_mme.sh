#!/usr/bin/env bash
#SBATCH --job-name=cof-mme --nodes=2 --ntasks-per-node=1 --gpus-per-node=4 --cpus-per-task=16
# MME on the GPUs of several machines, one process a GPU: sbatch slurm_mme.sh [key=value ...]
# Submit from the repository, with an environment active that has `cof`, MME_ROOT set and `runs/` on
# a disk that all machines share. The same job, also with other --nodes, goes on where one was cut off.
set -euo pipefail
head="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
exec srun --kill-on-bad-exit=1 torchrun --nnodes "$SLURM_NNODES" \
  --nproc_per_node "${SLURM_GPUS_ON_NODE:-1}" --rdzv_id "$SLURM_JOB_ID" --rdzv_backend c10d \
  --rdzv_endpoint "$head:${PORT:-29500}" -m cof.cli eval \
  "${CONFIG:-$SLURM_SUBMIT_DIR/examples/configs/mme_llava13b_published.yaml}" \
  "bench.root=${MME_ROOT:?folder of the MME release}" "$@"
