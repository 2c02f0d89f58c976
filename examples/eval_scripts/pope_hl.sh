#!/usr/bin/env bash
# POPE (random, popular, adversarial), plain and with CoF: [POPE_ROOT= ...] pope_hl.sh [key=value ...]
# POPE_ROOT holds coco_pope_*.json and val2014/; settings as in mme_hl.sh.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_hl.sh"
cof_hl eval pope "${POPE_ROOT:-}" MiniPOPE "$@"
