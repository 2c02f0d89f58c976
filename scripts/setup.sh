# Sourced by the scripts: sets PYTHON to an interpreter that can run cof, installing what it lacks.
#   . scripts/setup.sh REQUIREMENTS...        (files of the repository's root)
# COF_PYTHON: this interpreter, checked but never changed. Else the active virtual environment,
# else .venv in the repository. A stamp in the environment makes the next call instant and offline.
COF_ROOT="$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")"
cof_python_is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    { echo "cof: needs Python 3.11 or newer as $1; name another one with COF_PYTHON" >&2; return 1; }
}
cof_install() {  # ENVIRONMENT REQUIREMENTS...
  local environment="$1" files=() file key; shift
  for file in "$@"; do files+=("$COF_ROOT/$file"); done
  key="$(cat "${files[@]}" "$COF_ROOT/setup.py" - <<<"$COF_ROOT" | cksum | tr ' ' -)"
  PYTHON="$environment/bin/python"
  [[ -e "$environment/cof-$key" ]] && return
  [[ -e "$PYTHON" ]] || python3 -m venv "$environment" >&2 || true
  "$PYTHON" -m pip --version &>/dev/null || "$PYTHON" -m ensurepip &>/dev/null ||
    { echo "cof: no venv or pip for python3 (Debian: apt install python3-venv); or set COF_PYTHON" >&2; return 1; }
  echo "cof: installing into $environment (torch included: minutes the first time)" >&2
  "$PYTHON" -m pip install --quiet --disable-pip-version-check "${files[@]/#/-r}" >&2
  "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps -e "$COF_ROOT" >&2
  touch "$environment/cof-$key"
}
if [[ -n "${COF_PYTHON:-}" ]]; then
  PYTHON="$COF_PYTHON"
  cof_python_is_new_enough "$PYTHON"
  "$PYTHON" "$COF_ROOT/scripts/check_requirements.py" "${@/#/$COF_ROOT/}"
  export PYTHONPATH="$COF_ROOT${PYTHONPATH:+:$PYTHONPATH}"
else
  cof_python_is_new_enough "${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/}python3"
  cof_install "${VIRTUAL_ENV:-$COF_ROOT/.venv}" "$@"
fi
