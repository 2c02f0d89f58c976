#!/usr/bin/env bash
# Every coarse and fine stage on the same questions, with controls: [MODEL= OUT=] methods.sh [option ...]
# Five sets of 1,200 questions, hours on two CPU cores; stops and goes on at any point. Options are those
# of `cof tiny methods`: --sets fine --questions 200 for a look. MODEL is a checkpoint of the laboratory.
set -euo pipefail
[[ -z "${OUT:-}" ]] || OUT="$(realpath -ms "$OUT")"    # the caller's paths
[[ ! -e "${MODEL:-}" ]] || MODEL="$(realpath -s "$MODEL")"
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/setup.sh" requirements.txt
cd "$COF_ROOT"
exec "$PYTHON" -m cof.cli tiny methods "${MODEL:-base_models/cof-tiny}" "${OUT:-runs/methods}" "$@"
