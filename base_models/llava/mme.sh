#!/usr/bin/env bash
# MME through LLaVA's own package: [MME_ROOT= MODEL= WEIGHT= EXPAND= OUT= SIZE=] mme.sh [key=value ...]
# MODEL is of the original layout; without, cof-tiny is exported to it. README.md here says what to install.
set -euo pipefail
root="$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")"
. "$root/scripts/setup.sh" requirements.txt
tiny="${OUT:-$root/runs}/llava-cof-tiny"
[[ -n "${MODEL:-}" || -e "$tiny/config.json" ]] ||
  "$PYTHON" -m cof.cli tiny export "$root/base_models/cof-tiny" "$tiny" --layout original
export MODEL="${MODEL:-$tiny}"
exec bash "$root/examples/eval_scripts/mme_hl.sh" model.name=llava_package "$@"
