# Sourced by the scripts beside it, from the root of the repository. After `make_environment` or
# `make_environment test`, `$python` is an interpreter in .venv with wsss_tf (editable) and what it
# needs, `test` with the test tools too.
#
# PYTHON=/path/to/python3.12 chooses another interpreter than the first usable one found.

python=.venv/bin/python

# Prints the version of interpreter $1 ("3.12") if it runs, is supported and has the modules $2.
supported_version() {
  "$1" -c "
import sys, $2
version = sys.version_info[:2]
print('%d.%d' % version) if (3, 10) <= version <= (3, 13) else sys.exit(1)" </dev/null 2>/dev/null
}

# Prints an interpreter to make .venv with. A name may be a shim that does not run: each is tried.
find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.12 python3.11 python3.10 python3.13 python3; do
    if supported_version "$candidate" "venv, ensurepip" >/dev/null; then
      echo "$candidate"
      return
    elif [[ $candidate == "${PYTHON:-}" ]]; then
      echo "PYTHON=$PYTHON does not run as Python 3.10 to 3.13 with venv; trying others" >&2
    fi
  done
  echo "error: no Python 3.10 to 3.13 with its venv module; install one, or name it with PYTHON=/path/to/python3.12" >&2
  return 1
}

make_environment() {
  local extra=${1:-} base stamp version wanted
  version=$(supported_version "$python" pip) || version=none
  wanted=$(supported_version "${PYTHON:-}" venv) || wanted=$version
  if [[ $version == none || $version != "$wanted" ]]; then
    base=$(find_python) || return
    echo "making .venv with $("$base" --version)"
    "$base" -m venv --clear .venv || return
  fi

  # The path is part of the stamp because an editable install does not survive a move.
  stamp="$(pwd -P) $(cksum <setup.py)"
  if ! grep -qxFs -- "$stamp" .venv/installed_${extra:-*}; then
    echo "installing wsss_tf and what it needs${extra:+, with the $extra tools,} into .venv; the first time takes minutes and 3 GB of disk"
    "$python" -m pip install --quiet --disable-pip-version-check --editable ".${extra:+[$extra]}" || return
    if [[ $extra == test ]]; then
      # Tests compare the dense CRF with it, where there is a C++ compiler to build it with.
      "$python" -m pip install --quiet --disable-pip-version-check 'pydensecrf2>=1.1,<2' >/dev/null 2>&1 ||
        echo "without pydensecrf: tests that compare with it are skipped"
    fi
    echo "$stamp" >".venv/installed_${extra:-base}"
  fi
}
