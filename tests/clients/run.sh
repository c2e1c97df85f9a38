#!/bin/sh
# Standard FHIR clients against the live proxy of a demo that this starts and stops by itself: fhirclient and
# fhir-kit-client from npm, fhirpy from PyPI. What this machine cannot run is skipped with a word.
# Usage: tests/clients/run.sh PATH_TO_BINARY
set -eu
if [ $# -lt 1 ]; then
  echo "usage: $0 PATH_TO_BINARY" >&2
  exit 2
fi
program=$(realpath "$1")
cd "$(dirname "$0")"
if ! command -v npm >/dev/null; then
  echo "skipped: npm is not installed"
  exit 0
fi
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
python=""
if python3 -m venv .venv 2>/dev/null && .venv/bin/pip install --quiet --requirement requirements.txt 2>/dev/null; then
  python=$PWD/.venv/bin/python
fi
exec node run.mjs "$program" "$python"
