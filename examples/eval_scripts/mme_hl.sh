#!/usr/bin/env bash
# MME, plain and with CoF: [MME_ROOT= MODEL= WEIGHT= EXPAND= OUT= CONFIG=] mme_hl.sh [key=value ...]
# Without MME_ROOT on MiniMME, of DIFFICULTY easy, fine, crowded or noise.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_hl.sh"
cof_hl eval mme "${MME_ROOT:-}" MiniMME "$@"
