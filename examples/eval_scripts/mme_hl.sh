#!/usr/bin/env bash
# MME, plain and with CoF: [MME_ROOT= MODEL= WEIGHT= EXPAND= OUT= CONFIG=] mme_hl.sh [key=value ...]
# Without MME_ROOT on MiniMME, of DIFFICULTY easy, fine, crowded or noise. As it stands, without keys or
# settings, it also runs the mean of plain and crop (docs/methods.md), and both with the true boxes.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_hl.sh"
export SIZE="${SIZE:-120}"    # images of each part: 1,200 questions
if [[ -z "${MME_ROOT:-}${WEIGHT:-}${EXPAND:-}${CONFIG:-}$*" ]]; then
  cof_hl sweep mme "" MiniMME name=mme_hl locate=prompt,oracle refine=highlight,mean
fi
cof_hl eval mme "${MME_ROOT:-}" MiniMME "$@"
