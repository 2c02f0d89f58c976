#!/usr/bin/env bash
# Set-up, lint, types and the whole suite; further arguments go to pytest.
# With --fast first: without the tests marked `slow`, in two halves side by side.
set -euo pipefail
here="$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")"
. "$here/scripts/setup.sh" requirements.txt requirements-dev.txt
lint() {
  "$PYTHON" -m ruff check "$here"
  "$PYTHON" -m ruff format --check "$here"
  "$PYTHON" -m mypy --config-file "$here/pyproject.toml" --cache-dir "$here/.mypy_cache" \
    "$here/cof" "$here/cof_lab" "$here/cof_speed"
}
suite() { "$PYTHON" -m pytest -c "$here/pyproject.toml" --rootdir "$here" "$@"; }
half() { suite -m "not slow" -p no:cacheprovider "$@" || (($? == 5)); }  # 5: none of these chosen
if [[ "${1:-}" != --fast ]]; then
  lint
  suite "$here/tests" "$@"
  exit
fi
shift
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
said="$(mktemp)"
half "$here"/tests/test_[m-z]*.py "$@" >"$said" 2>&1 &
trap 'kill $! 2>/dev/null || true; rm -f "$said"' EXIT
lint
half "$here"/tests/test_[a-l]*.py "$@"
wait $! || { cat "$said"; exit 1; }
cat "$said"
