#!/usr/bin/env bash
# Makes the Redis of the reader region the writer. See docs/regions.md and "Region promotion" in docs/runbook.md.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: promote.sh --from HOST:PORT --to HOST:PORT [options]

  Planned: fences the old writer (--from), proves the fence, waits until the replica (--to) has everything, promotes it, and makes the old
  writer its replica. Nothing that was acknowledged is lost. Every step may be run again after an interruption.

  --to-as HOST:PORT     how the old writer reaches the new one, if not as --to
  --max-wait SECONDS    longest wait for the replica to catch up, then the fence is taken off again (default 10)
  --user NAME           ACL user; the password comes from REDISCLI_AUTH (REDISCLI_AUTH_FROM, REDISCLI_AUTH_TO where they differ)
  --tls [--cacert FILE] [--cert FILE] [--key FILE]
  --dry-run             checks both ends and says what would be done

  --old-writer-is-fenced "HOW"
      The old writer cannot be reached. You state that it can take no writes, now or when it comes back, and how you know. Without that two
      regions may write: each counts its own sessions, users get twice their limit, and what one of them wrote is thrown away in the end.
      Good reasons: its machines are off; its network is cut off; it runs with min-replicas-to-write so high that it cannot write without this
      replica (min-replicas-to-write = its local replicas + 1, min-replicas-max-lag 2), so it has fenced itself.
      Not good: "it does not answer me".
      What the replica had not yet received is lost; the script says for how long it has heard nothing.

  --rejoin
      After --old-writer-is-fenced: the old writer is back. Fences it and makes it the replica of --to. Its writes that never arrived are discarded.

  Environment: REDISCLI_AUTH, REDISCLI_AUTH_FROM, REDISCLI_AUTH_TO; REDIS_CLI names the program (default redis-cli).
  Exit code: 0 done; 1 failed half-way, the text says where; 2 wrong usage; 3 refused, and nothing is changed.
TEXT
}

# Above any real number of replicas, so it refuses every write; what it was before is the rest.
readonly FENCE=1000000
readonly PROBE_KEY=viewing:promotion-probe
# The longest that an idle master is silent (repl-ping-replica-period is 10 s), and a little more.
readonly SILENT_SECONDS=12
call_seconds=5
readonly CLI=${REDIS_CLI:-redis-cli}

from='' to='' to_as='' user='' how='' mode=planned dry_run=false max_wait=10
cli_options=()
fenced=false promoted=false
started_ms=0

say() { printf '%8d ms  %s\n' "$(($(now_ms) - started_ms))" "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
refuse() { printf 'REFUSED: %s\nNothing is changed.\n' "$*" >&2; exit 3; }
wrong() { printf '%s\n\n' "$*" >&2; usage >&2; exit 2; }
now_ms() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }

# ask from|to COMMAND…: the reply as text; error replies too. Fails when there is none.
ask() {
  local address=$from password=${REDISCLI_AUTH_FROM:-${REDISCLI_AUTH:-}}
  if [[ $1 == to ]]; then address=$to password=${REDISCLI_AUTH_TO:-${REDISCLI_AUTH:-}}; fi
  shift
  REDISCLI_AUTH=$password timeout "$call_seconds" "$CLI" -h "$(host_of "$address")" -p "${address##*:}" "${cli_options[@]}" "$@" 2>/dev/null | tr -d '\r'
}
host_of() { local host=${1%:*}; host=${host#[}; echo "${host%]}"; }
field() { sed -n "s/^$2://p" <<<"$1"; }
setting() { ask "$1" CONFIG GET "$2" | sed -n 2p; }
set_config() { [[ $(ask "$1" CONFIG SET "$2" "$3") == OK ]]; }

# An error of the name is what is expected; both kinds of write that there are.
writes_are_refused() {
  [[ $(ask "$1" EVAL $'#!lua\nreturn 1' 0) == *"$2"* && $(ask "$1" SET "$PROBE_KEY" 1 PX 1) == *"$2"* ]]
}

fence() {
  local before lag
  before=$(setting from min-replicas-to-write)
  lag=$(setting from min-replicas-max-lag)
  [[ $before =~ ^[0-9]+$ && $lag =~ ^[0-9]+$ ]] || fail 'the old writer does not tell min-replicas-to-write: the user needs CONFIG'
  fenced=true
  # A lag of 0 would switch the fence off.
  if ((lag == 0)); then set_config from min-replicas-max-lag "$FENCE" || fail 'the old writer cannot be fenced'; fi
  if ((before < FENCE)); then set_config from min-replicas-to-write $((FENCE + before)) || fail 'the old writer cannot be fenced'; fi
  writes_are_refused from NOREPLICAS || fail 'the old writer still takes writes'
}

unfence() {
  local value lag
  value=$(setting from min-replicas-to-write)
  lag=$(setting from min-replicas-max-lag)
  if [[ $value =~ ^[0-9]+$ ]] && ((value >= FENCE)); then set_config from min-replicas-to-write $((value - FENCE)) || return 1; fi
  if [[ $lag == "$FENCE" ]]; then set_config from min-replicas-max-lag 0 || return 1; fi
  fenced=false
}

# Until the promotion the old writer is the writer: whatever goes wrong, it may write again.
at_exit() {
  local code=$?
  if ((code > 3)); then printf 'FAILED: ended in the middle of a step (code %d): interrupted, or a server did not answer.\n' "$code" >&2; fi
  if $fenced && ! $promoted; then
    if unfence; then say 'the fence is off again: the old writer writes as before' >&2
    else printf 'The fence could not be taken off. Run this again, or: CONFIG SET min-replicas-to-write to what it was.\n' >&2; fi
  fi
  exit "$code"
}

while (($# > 0)); do
  case $1 in
    --from | --to | --to-as | --max-wait | --user | --old-writer-is-fenced | --cacert | --cert | --key)
      (($# > 1)) || wrong "$1 needs a value"
      case $1 in
        --from) from=$2 ;;
        --to) to=$2 ;;
        --to-as) to_as=$2 ;;
        --max-wait) max_wait=$2 ;;
        --user) user=$2 ;;
        --old-writer-is-fenced) mode=lost how=$2 ;;
        *) cli_options+=("$1" "$2") ;;
      esac
      shift 2
      ;;
    --tls) cli_options+=(--tls); shift ;;
    --rejoin) mode=rejoin; shift ;;
    --dry-run) dry_run=true; shift ;;
    --help | -h) usage; exit 0 ;;
    *) wrong "unknown option $1" ;;
  esac
done
for address in "$from" "$to" "${to_as:=$to}"; do
  [[ $address =~ ^[^[:space:]]+:[0-9]{1,5}$ ]] || wrong '--from and --to are needed, each HOST:PORT'
done
[[ $max_wait =~ ^[0-9]{1,4}$ ]] || wrong '--max-wait is a number of seconds'
[[ $mode != lost || ${#how} -ge 5 ]] || wrong '--old-writer-is-fenced: say how'
[[ -z $user ]] || cli_options+=(--user "$user")
command -v "$CLI" >/dev/null || wrong "$CLI is not on PATH"
# A lost server need not be waited for as long as a slow one.
[[ $mode != lost ]] || call_seconds=2
started_ms=$(now_ms)
trap at_exit EXIT
trap 'exit 130' INT TERM HUP

to_info=$(ask to INFO replication) || true
to_role=$(field "$to_info" role)
[[ -n $to_role ]] || refuse "$to does not answer, or does not let us in"
from_info=$(ask from INFO replication) || true
from_role=$(field "$from_info" role)

no_sentinels() {
  local side
  for side in "$@"; do
    if ask "$side" CLIENT LIST | grep -q 'name=sentinel-'; then
      refuse "Sentinels watch the ${side/from/old}${side/to/} server (--$side) and would undo this. First, on each of them: SENTINEL REMOVE <name>"
    fi
  done
}

silent_seconds() {
  local info
  info=$(ask to INFO replication) || true
  if [[ $(field "$info" master_link_status) == up ]]; then field "$info" master_last_io_seconds_ago; else field "$info" master_link_down_since_seconds; fi
}

# Without enough replicas of its own the new writer would refuse all writes.
writes_without_replicas() {
  local minimum replicas
  minimum=$(setting to min-replicas-to-write)
  replicas=$(field "$(ask to INFO replication)" connected_slaves)
  new_minimum=0
  if ((minimum > replicas)); then
    set_config to min-replicas-to-write 0 || fail 'min-replicas-to-write of the new writer cannot be set'
    new_minimum=$minimum
    say "min-replicas-to-write of the new writer was $minimum and is 0 until the old one follows it"
  fi
}

promote() {
  writes_without_replicas
  ask to REPLICAOF NO ONE >/dev/null || true
  # A lost reply does not matter: its role does.
  [[ $(field "$(ask to INFO replication)" role) == master ]] || fail "$to did not become a master"
  promoted=true
  [[ $(ask to SET "$PROBE_KEY" 1 PX 1) == OK ]] || fail "$to is a master and takes no writes. Promoted; the old writer stays fenced. Run this again"
  promoted_ms=$(now_ms)
  say "promoted: $to takes writes"
}

keep_in_file() {
  local side
  for side in "$@"; do
    if [[ $(ask "$side" CONFIG REWRITE) != OK ]]; then
      printf 'ATTENTION: %s has no configuration file that it may write. After a restart it would have its old role: change its deployment now.\n' "${!side}" >&2
    fi
  done
}

follow() {
  local deadline=$(($(now_ms) + max_wait * 1000 + 60000)) info
  [[ $(ask from REPLICAOF "$(host_of "$to_as")" "${to_as##*:}") == OK* ]] || fail "$from could not be made a replica. It stays fenced. Run this again"
  while info=$(ask from INFO replication) || true; [[ $(field "$info" role) != slave || $(field "$info" master_link_status) != up ]]; do
    (($(now_ms) < deadline)) || fail "$from does not reach $to_as (masteruser and masterauth? the network?). $to is the writer and $from takes no writes. Mend it and run this again"
    sleep 0.1
  done
  writes_are_refused from READONLY || fail "$from still takes writes: replica-read-only must be yes"
  unfence || fail 'the fence could not be taken off the old writer; as a replica it takes no writes anyway. Run this again'
  say "$from is a replica of $to_as and in touch with it"
  if ((${new_minimum:-0} > 0)); then
    set_config to min-replicas-to-write "$new_minimum" || fail "min-replicas-to-write of $to could not be set back to $new_minimum"
    say "min-replicas-to-write of the new writer is $new_minimum again"
  fi
  keep_in_file from to
}

case $mode/$from_role/$to_role in
  planned//*) refuse "the old writer $from does not answer.
If it is only out of your reach, it still writes: then two regions would. Read --old-writer-is-fenced in --help before you go on. The replica has heard nothing from it for $(silent_seconds) s" ;;

  planned/slave/master)
    [[ $(field "$from_info" master_replid) == "$(field "$to_info" master_replid)" || "$(field "$from_info" master_host):$(field "$from_info" master_port)" == "$(host_of "$to_as"):${to_as##*:}" ]] ||
      refuse "$from is not a replica of $to"
    no_sentinels from to
    $dry_run && { say "$to is the writer already; the fence would be taken off $from if it were on"; exit 0; }
    promoted=true
    follow
    say 'nothing else was left to do'
    ;;

  planned/master/master)
    [[ $(field "$to_info" master_replid2) == "$(field "$from_info" master_replid)" && $(setting from min-replicas-to-write) -ge $FENCE ]] ||
      refuse "both are masters, and this is no interrupted promotion. If $to was promoted while $from was away: --rejoin"
    no_sentinels from to
    $dry_run && { say "an interrupted promotion: $from would be made a replica of $to_as"; exit 0; }
    say 'an interrupted promotion: it is carried on'
    promoted=true
    [[ $(ask to SET "$PROBE_KEY" 1 PX 1) == OK ]] || writes_without_replicas
    follow
    ;;

  planned/master/slave)
    [[ $(field "$to_info" master_replid) == "$(field "$from_info" master_replid)" ]] || refuse "$to is not a replica of $from"
    [[ $(field "$to_info" master_link_status) == up && $(field "$to_info" master_sync_in_progress) == 0 ]] || refuse "$to has no connection to its master, or is not in step yet"
    (($(field "$to_info" master_last_io_seconds_ago) <= SILENT_SECONDS)) || refuse "$to has heard nothing from its master for $(silent_seconds) s"
    for side in from to; do [[ $(setting $side replica-read-only) == yes ]] || refuse "${!side}: replica-read-only must be yes, or CONFIG GET is not allowed"; done
    no_sentinels from to
    behind=$(($(field "$from_info" master_repl_offset) - $(field "$to_info" slave_repl_offset)))
    say "checked: $to is a replica of $from, in touch $(field "$to_info" master_last_io_seconds_ago) s ago, about $behind bytes behind"
    if $dry_run; then
      say "would do: on $from CONFIG SET min-replicas-to-write; wait for $to; on $to REPLICAOF NO ONE; on $from REPLICAOF $(host_of "$to_as") ${to_as##*:}"
      exit 0
    fi
    fenced_ms=$(now_ms)
    fence
    say "fenced: $from refuses writes"
    until_offset=$(field "$(ask from INFO replication)" master_repl_offset)
    deadline=$(($(now_ms) + max_wait * 1000))
    while (($(field "$(ask to INFO replication)" slave_repl_offset) < until_offset)); do
      (($(now_ms) < deadline)) || fail "$to did not catch up within $max_wait s"
      sleep 0.02
    done
    say "in step: $to has everything up to offset $until_offset"
    promote
    follow
    say "done. Between fence and promotion no region took writes: $((promoted_ms - fenced_ms)) ms. Nothing that was acknowledged is lost."
    ;;

  lost/master/*) refuse "$from answers and is a master. Run this without --old-writer-is-fenced" ;;
  lost/*/master) say "$to is the writer already. When the old one is back: --rejoin" ;;
  lost/*/slave)
    no_sentinels to
    [[ $(field "$to_info" master_sync_in_progress) == 0 && $(silent_seconds) -ge 0 ]] || refuse "$to was in the middle of a full copy, or never had one: it does not hold the data"
    deadline=$(($(now_ms) + (SILENT_SECONDS + 8) * 1000))
    while [[ $(field "$to_info" master_link_status) == up ]] && (($(silent_seconds) < SILENT_SECONDS)); do
      (($(now_ms) < deadline)) || refuse "$to still hears from $from: it is alive. Reach it, and run this without --old-writer-is-fenced"
      say "$to is still connected to $from and has heard nothing for $(silent_seconds) s; waiting for $SILENT_SECONDS s of silence"
      sleep 2
      to_info=$(ask to INFO replication) || true
    done
    say "THE OLD WRITER IS SAID TO BE FENCED: $how"
    say "last contact of $to with it: $(silent_seconds) s ago, at offset $(field "$to_info" slave_repl_offset). What it acknowledged after that is lost."
    $dry_run && { say "would do: on $to REPLICAOF NO ONE"; exit 0; }
    promote
    keep_in_file to
    if ((new_minimum > 0)); then say "when the old one is back and follows: CONFIG SET min-replicas-to-write $new_minimum on $to"; fi
    say "done. When $from is back it must not take writes: --rejoin makes it a replica and discards what never arrived."
    ;;

  rejoin/*/slave) refuse "$to is not the writer" ;;
  rejoin//*) refuse "$from does not answer" ;;
  rejoin/*/master)
    no_sentinels from to
    lost_bytes='an unknown number of'
    if [[ $(field "$to_info" master_replid2) == "$(field "$from_info" master_replid)" ]]; then
      lost_bytes=$(($(field "$from_info" master_repl_offset) - $(field "$to_info" second_repl_offset) + 1))
    fi
    $dry_run && { say "would make $from a replica of $to_as and discard $lost_bytes bytes of its writes"; exit 0; }
    promoted=true
    if [[ $from_role == master ]]; then
      fence
      say "fenced: $from refuses writes; $lost_bytes bytes that it wrote after the last contact are discarded"
    fi
    follow
    say 'done'
    ;;
  *) refuse "roles do not fit: $from is ${from_role:-away}, $to is $to_role" ;;
esac
