#!/usr/bin/env bash
# The λ x α x scope grid on MME, one table, one figure: [MME_ROOT= WEIGHTS= EXPANDS= SCOPES= ...] ablation_mme.sh
# Stops and goes on at any point; settings as in mme_hl.sh, further NAME=VALUE,VALUE add to the grid.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_hl.sh"
cof_hl sweep mme "${MME_ROOT:-}" MiniMME "weight=${WEIGHTS:-1,1.3,2,3,4.5}" \
  "expand=${EXPANDS:-1,1.5,2}" "scope=${SCOPES:-all,text}" "$@"
