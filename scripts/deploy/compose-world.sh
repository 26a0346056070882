#!/usr/bin/env bash
# A world of its own for the parts of docker-compose.yml: a network with nothing but loopback, the compose file's host names, and a name server where
# engines have theirs (127.0.0.11), so that the configuration files run as they are. Nothing of the machine is changed. Runs COMMAND in it.
#
#     compose-world.sh COMMAND…      WORLD is a folder: WORLD/instances holds a line `ADDRESS viewing` for each instance
set -euo pipefail

if [ "${WORLD_INSIDE:-}" != yes ]; then
  WORLD_INSIDE=yes exec unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private "$0" "$@"
fi
ip link set lo up
export WORLD
WORLD=$(mktemp -d)
mount -t tmpfs -o mode=755 world "$WORLD"
mkdir "$WORLD/changed" "$WORLD/work" "$WORLD/home"
mount -t overlay -o "lowerdir=/etc,upperdir=$WORLD/changed,workdir=$WORLD/work" etc /etc
rm -f /etc/resolv.conf
echo 'nameserver 127.0.0.11' >/etc/resolv.conf
echo '127.0.0.1 localhost redis kafka jaeger prometheus' >/etc/hosts
touch "$WORLD/instances"
dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --addn-hosts="$WORLD/instances" --listen-address=127.0.0.11 --bind-interfaces \
  --pid-file="$WORLD/dnsmasq.pid" --user=root --local-ttl=1 &
export XDG_CONFIG_HOME=$WORLD/home XDG_DATA_HOME=$WORLD/home
code=0
"$@" || code=$?
umount -l /etc "$WORLD" && rmdir "$WORLD"
exit "$code"
