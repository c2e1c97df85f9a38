#!/bin/sh
# The patient's journey in a real browser, against a demo that this starts and stops by itself.
# Usage: tests/browser/run.sh PATH_TO_BINARY [SCREENSHOT_DIR]. RUN=places measures the search with 150,000 places on a
# slow phone instead (minutes; with CHARTGATE_TEST_DATA over the published lists). CHROMIUM names another browser than /usr/bin/chromium.
set -eu
if [ $# -lt 1 ]; then
  echo "usage: $0 PATH_TO_BINARY [SCREENSHOT_DIR]" >&2
  exit 2
fi
program=$(realpath "$1")
pictures=${2:+$(mkdir -p "$2" && realpath "$2")}
cd "$(dirname "$0")"
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
exec node "${RUN:-run}.mjs" "$program" "$pictures"
