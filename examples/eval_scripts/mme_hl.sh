#!/usr/bin/env bash
# MME, plain and with CoF: [MODEL= MME_ROOT= WEIGHT= EXPAND= OUT= CONFIG=] mme_hl.sh [key=value ...]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../setup.sh" requirements.txt
MINI="$COF_ROOT/runs/data/mini"    # made once; sha256.json is written last
[[ -n "${MME_ROOT:-}" || -e "$MINI/sha256.json" ]] ||
  { rm -rf "$MINI"; "$PYTHON" -m cof.cli data mini "$MINI"; }
exec "$PYTHON" -m cof.cli eval "${CONFIG:-$COF_ROOT/examples/configs/mme_tiny.yaml}" \
  "bench.root=${MME_ROOT:-$MINI/MiniMME}" "out=${OUT:-$COF_ROOT/runs}" \
  ${MODEL:+"model.path=$MODEL"} ${WEIGHT:+"refine.weight=$WEIGHT"} \
  ${EXPAND:+"boxes.expand=$EXPAND"} "$@"
