#!/usr/bin/env bash
# Image, compose file and chart through their real checkers, on Debian as root; `--fast` leaves out what builds and runs. Tools are installed once,
# outside the checkout. Says UNCHECKED what no checker here can tell. The last line is `N passed, N failed`.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/deploy/tools.sh
export PATH="$PWD/node_modules/.bin:$PATH"
fast=
[ "${1:-}" != --fast ] || fast=yes

work=$(mktemp -d)
finish() {
  [ -n "$fast" ] || scripts/deploy/build-image.sh --remove
  rm -rf "$work"
}
trap finish EXIT
passed=0
failed=0

# part NAME COMMAND… : counts what the command counted in its last line, else its exit code.
part() {
  local name=$1 code=0 began=$SECONDS last
  shift
  echo "== $name"
  "$@" 2>&1 | tee "$work/log" || code=$?
  last=$(tail -n 1 "$work/log")
  if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
    passed=$((passed + BASH_REMATCH[1]))
    failed=$((failed + BASH_REMATCH[2]))
    [ "$code" -eq 0 ] || [ "${BASH_REMATCH[2]}" -gt 0 ] || failed=$((failed + 1))
  elif [ "$code" -eq 0 ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED $name"
  fi
  echo "== $name: $((SECONDS - began)) s"
}

python_tools
helm_tool
schema_files
prometheus_tools
part 'Dockerfile: hadolint' "$PYTHON/hadolint" Dockerfile
part 'compose file' node scripts/deploy/check-compose.mjs "$SCHEMAS/compose-spec.json"
part 'compose file: promtool' "$PROMETHEUS/promtool" check config --syntax-only deploy/compose/prometheus.yml
part 'chart' node scripts/deploy/check-chart.mjs "$HELM" "$PYTHON/kubernetes-validate" "$SCHEMAS"/*_*.yaml
part 'proxy: caddy validate' "$PYTHON/caddy" validate --adapter caddyfile --config deploy/compose/Caddyfile
part 'licences' npm run -s licences:check
if [ -z "$fast" ]; then
  debian redis-server redis-tools iproute2 dnsmasq-base default-jre-headless maven
  node scripts/kafka-library.mjs >/dev/null
  part 'image: build' bash -c "scripts/deploy/build-image.sh '$work/image.json' >'$work/rootfs'"
  rootfs=$(cat "$work/rootfs")
  part 'image: run' node scripts/deploy/check-image.mjs "$rootfs" "$work/image.json"
  part 'compose file: run' scripts/deploy/compose-world.sh node --disable-warning=TimeoutNegativeWarning scripts/deploy/check-compose-run.mjs \
    "$rootfs" "$work/image.json" "$PYTHON/caddy" "$PROMETHEUS/prometheus"
else
  echo 'UNCHECKED whether the image builds and runs (without --fast)'
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
