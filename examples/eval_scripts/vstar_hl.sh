#!/usr/bin/env bash
# V*Bench, plain and with CoF; its boxes score the coarse stage: [VSTAR_ROOT= ...] vstar_hl.sh [key=value ...]
# VSTAR_ROOT holds direct_attributes/ and relative_position/; settings as in mme_hl.sh.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_hl.sh"
cof_hl eval vstar "${VSTAR_ROOT:-}" MiniVStar "$@"
