#!/usr/bin/env bash
# Everything that needs a GPU, in one go: [--minutes N] gpu.sh; without a GPU it says so and exits 0.
# Writes docs/performance_gpu.md and docs/performance_gpu.json.
set -euo pipefail
here="$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")"
. "$here/scripts/setup.sh" requirements.txt requirements-dev.txt
exec "$PYTHON" "$here/scripts/gpu_report.py" "$@"
