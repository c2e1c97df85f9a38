#!/usr/bin/env bash
# Tries the running demo against its own description: first whether the description is valid OpenAPI, then schemathesis,
# which makes requests from it and compares every answer. `tests/api/run.sh PROGRAM [SECONDS] [SEED]`; the report names the
# seed, and the same seed makes the same requests.
set -euo pipefail
program=$(realpath "$1")
seconds=${2:-100}
seed=${3:-20261102}
cd "$(dirname "$0")"

if ! python3 -m pip --version >/dev/null 2>&1 || ! python3 -c 'import venv' >/dev/null 2>&1; then
  if [ -n "${CI:-}" ]; then echo "python3 with pip and venv is needed" >&2; exit 1; fi
  echo "skipped: python3 with pip and venv is not here" >&2
  exit 0
fi
work=$(mktemp -d)
demo=
finish() {
  if [ -n "$demo" ]; then kill "$demo" 2>/dev/null || true; wait "$demo" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap finish EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt

# A fast client must not be told to wait: the limits have tests of their own.
export CHARTGATE_API__RATE=100000 CHARTGATE_API__BURST=100000 CHARTGATE_API__WRONG_KEYS=100000
"$program" --json demo --port 0 >"$work/demo.json" 2>"$work/demo.log" &
demo=$!
for _ in $(seq 300); do
  [ -s "$work/demo.json" ] && break
  kill -0 "$demo" 2>/dev/null || { cat "$work/demo.log" >&2; exit 1; }
  sleep 0.1
done
read_demo() { "$work/venv/bin/python" -c "import json,sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])" "$work/demo.json" "$1"; }
base=$(read_demo base_url)
key=$(read_demo api_key)

"$work/venv/bin/python" - "$base" "$work/openapi.json" <<'PYTHON'
import json, sys, urllib.request
from openapi_spec_validator import validate

text = urllib.request.urlopen(sys.argv[1] + "/openapi.json").read()
open(sys.argv[2], "wb").write(text)
document = json.loads(text)
validate(document)
print(f"valid OpenAPI {document['openapi']}: {sum(len(methods) for methods in document['paths'].values())} operations")
PYTHON

# It leaves its notes where it runs.
cd "$work"
# The live proxy answers with what a hospital says; it has tests of its own. A schema cannot say that `patient_id` is that
# of the path, or which cursor belongs to which list, so refusing what only the schema allows is no failure.
"$work/venv/bin/schemathesis" run "$work/openapi.json" --url "$base" \
  --header "Authorization: Bearer $key" --seed "$seed" --max-time "$seconds" --workers 1 --suppress-health-check all --no-color \
  --exclude-checks positive_data_acceptance --exclude-path-regex '^/fhir/' | tee "$work/report"
