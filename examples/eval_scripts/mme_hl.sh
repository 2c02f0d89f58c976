#!/usr/bin/env bash
# MME, plain and with CoF; settings from the environment, further key=value arguments to cof eval:
# MODEL, MME_ROOT (else MiniMME of DIFFICULTY easy, fine or crowded), WEIGHT, EXPAND, OUT, CONFIG
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../setup.sh" requirements.txt
DIFFICULTY="${DIFFICULTY:-fine}"
MINI="$COF_ROOT/runs/data/mini-$DIFFICULTY"    # made once; sha256.json is written last
[[ -n "${MME_ROOT:-}" || -e "$MINI/sha256.json" ]] ||
  { rm -rf "$MINI"; "$PYTHON" -m cof.cli data mini "$MINI" --difficulty "$DIFFICULTY"; }
exec "$PYTHON" -m cof.cli eval "${CONFIG:-$COF_ROOT/examples/configs/mme_tiny.yaml}" \
  "bench.root=${MME_ROOT:-$MINI/MiniMME}" "out=${OUT:-$COF_ROOT/runs}" \
  ${MODEL:+"model.path=$MODEL"} ${WEIGHT:+"refine.weight=$WEIGHT"} \
  ${EXPAND:+"boxes.expand=$EXPAND"} "$@"
