# Sourced by the scripts beside it: set-up, then `cof_hl` with settings from the environment.
# MODEL, WEIGHT, EXPAND, OUT, CONFIG; DIFFICULTY (easy, fine, crowded) of the mini benchmarks.
. "$(dirname "${BASH_SOURCE[0]}")/../setup.sh" requirements.txt
cof_hl() {  # COMMAND BENCHMARK ROOT MINI [key=value ...]; without ROOT on the mini benchmark MINI
  local command="$1" bench="$2" root="$3" mini
  if [[ -z "$root" ]]; then
    mini="$COF_ROOT/runs/data/mini-${DIFFICULTY:-fine}"    # made once; sha256.json is written last
    [[ -e "$mini/sha256.json" ]] || { rm -rf "$mini"
      "$PYTHON" -m cof.cli data mini "$mini" --difficulty "${DIFFICULTY:-fine}"; }
    root="$mini/$4"
  fi
  exec "$PYTHON" -m cof.cli "$command" "${CONFIG:-$COF_ROOT/examples/configs/mme_tiny.yaml}" \
    "bench.name=$bench" "bench.root=$root" "out=${OUT:-$COF_ROOT/runs}" \
    ${MODEL:+"model.path=$MODEL"} ${WEIGHT:+"refine.weight=$WEIGHT"} \
    ${EXPAND:+"boxes.expand=$EXPAND"} "${@:5}"
}
