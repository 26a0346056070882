#!/usr/bin/env bash
# Schemathesis, all its checks, against a running service: requests made from the OpenAPI document, good and bad, and answers held against it. Once with AUTH_MODE=none
# and once with access tokens. Schemathesis is taken from PATH, else installed once outside the checkout. The last line is `N passed, N failed`.
# Needs Python 3, Node and a Redis program (else the one inside the process). EXAMPLES is how many requests are made per operation and phase.
set -euo pipefail
cd "$(dirname "$0")/.."

tool=$(command -v schemathesis || true)
if [ -z "$tool" ]; then
  venv=${XDG_CACHE_HOME:-$HOME/.cache}/viewing-service/tools/schemathesis
  tool=$venv/bin/schemathesis
  [ -x "$tool" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install -q 'schemathesis==4.32.5' >&2; }
fi
node=$(command -v node_modules/.bin/node || command -v node)
work=$(mktemp -d)
service=
finish() {
  [ -z "$service" ] || { kill "$service" 2>/dev/null; wait "$service" 2>/dev/null; } || true
  rm -rf "$work"
}
trap finish EXIT

passed=0
failed=0
# What is right here and no success: an ended session (410), a reused key (422); a body so much too long that it is not read (413).
cat >"$work/schemathesis.toml" <<'TOML'
[checks]
positive_data_acceptance.expected-statuses = ["2xx", 401, 403, 404, 409, 410, 422, 429, 503]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 409, 410, 413, 414, 415, 422, 429, 431]
TOML

# fuzz NAME 'ENV=…' EXCLUDED-CHECKS HEADER… : a service of its own for each run.
fuzz() {
  local name=$1 env=$2 exclude=$3 url='' headers=()
  shift 3
  for header in "$@"; do headers+=(-H "$header"); done
  echo "== $name"
  # The service may not have opened it when it is read first.
  : >"$work/$name.log"
  # shellcheck disable=SC2086
  env PORT=0 HOST=127.0.0.1 LOG_FORMAT=json SHUTDOWN_DELAY=50ms UPSTREAM_DEADLINE=5s USER_RATE_LIMIT=0 HEARTBEAT_MIN_GAP=0 $env "$node" src/server.ts >"$work/$name.log" 2>&1 &
  service=$!
  for _ in $(seq 200); do
    url=$(sed -n 's/.*"address":"\([^"]*\)".*"msg":"listening".*/\1/p' "$work/$name.log")
    [ -z "$url" ] || break
    kill -0 "$service" 2>/dev/null || { cat "$work/$name.log"; echo "0 passed, 1 failed"; exit 1; }
    sleep 0.1
  done
  local code=0
  # From the working folder: it keeps notes where it runs.
  (cd "$work" && "$tool" --config-file schemathesis.toml run "$url/openapi.json" "${headers[@]}" -n "${EXAMPLES:-25}" -w 1 --generation-deterministic --continue-on-failure -c all ${exclude:+--exclude-checks "$exclude"} \
    --report junit --report-junit-path "$work/$name.xml") || code=$?
  kill "$service" && wait "$service" || true
  service=
  local counts
  counts=$(python3 - "$work/$name.xml" <<'PY'
import sys
import xml.etree.ElementTree as tree
cases = list(tree.parse(sys.argv[1]).iter('testcase'))
bad = [case for case in cases if case.find('failure') is not None or case.find('error') is not None]
print(len([case for case in cases if case not in bad and case.find('skipped') is None]), len(bad))
PY
  ) || counts='0 1'
  local good=${counts% *} bad=${counts#* }
  # A run that ended badly without a named failure is a failure, and so is one that tested nothing.
  [ "$code" -eq 0 ] || [ "$bad" -gt 0 ] || bad=1
  [ "$good" -gt 0 ] || [ "$bad" -gt 0 ] || bad=1
  passed=$((passed + good))
  failed=$((failed + bad))
}

secret=fuzz-key-of-one-run-0123456789-abcdefgh
token=$("$node" -e '
const encode = value => Buffer.from(JSON.stringify(value)).toString("base64url")
const input = `${encode({ alg: "HS256", typ: "JWT" })}.${encode({ iss: "platform", aud: "playback", sub: "operator", scope: "playback:admin", exp: Math.floor(Date.now() / 1000) + 86400 })}`
console.log(`${input}.${require("crypto").createHmac("sha256", process.argv[1]).update(input).digest("base64url")}`)' "$secret")

# ensure_resource_availability, not without credentials: it stops a new session with the token of another, which is 404 by design.
# ignored_auth, not there either: starts need none with AUTH_MODE=none.
fuzz none AUTH_MODE=none ensure_resource_availability,ignored_auth
fuzz jwt "AUTH_MODE=jwt AUTH_JWT_SECRET=$secret AUTH_ISSUER=platform AUTH_AUDIENCE=playback" '' "Authorization: Bearer $token"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
