#!/usr/bin/env bash
# MMBench dev, every rotation, plain and with CoF: [MMBENCH_ROOT= ...] mmbench_dev_hl.sh [key=value ...]
# MMBENCH_ROOT holds an MMBench table (TSV or parquet); settings as in mme_hl.sh.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_hl.sh"
cof_hl eval mmbench "${MMBENCH_ROOT:-}" MiniMMBench "$@"
