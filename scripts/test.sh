#!/usr/bin/env bash
# Check everything: ruff, then pytest. Arguments go to pytest: scripts/test.sh -k seam
# With --all in front, what is long runs too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source scripts/environment.sh
make_environment test

"$python" -m ruff check .
"$python" -m ruff format --check .

marks="not large"
if [[ ${1:-} == --all ]]; then
  marks=""
  shift
fi

# By file, the longest first (tests/conftest.py knows them): what the tests of a file share is made
# once, and the two workers end together. What TensorFlow logs at its start would come after
# pytest's closing line.
exec "$python" -m pytest -p xdist -n 2 --dist loadfile --no-loadscope-reorder -m "$marks" "$@" \
  2> >(grep -vE '^(WARNING: All log messages before absl|[IWE]0000 )' >&2)
