#!/usr/bin/env bash
# The λ x α x scope grid on MME, one table, one figure: [MME_ROOT= WEIGHTS= EXPANDS= SCOPES= ...] ablation_mme.sh
# Stops and goes on at any point; further NAME=VALUE,VALUE add to the grid. Settings as in mme_hl.sh, but
# WEIGHT and EXPAND, which the grid would override, are refused.
set -euo pipefail
[[ -z "${WEIGHT:-}${EXPAND:-}" ]] ||
  { echo "ablation_mme.sh: the grid sets λ and α; use WEIGHTS and EXPANDS, not WEIGHT and EXPAND" >&2; exit 2; }
. "$(dirname "${BASH_SOURCE[0]}")/_hl.sh"
cof_hl sweep mme "${MME_ROOT:-}" MiniMME "weight=${WEIGHTS:-1,1.3,2,3,4.5}" \
  "expand=${EXPANDS:-1,1.5,2}" "scope=${SCOPES:-all,text}" "$@"
