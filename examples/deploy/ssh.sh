#!/bin/sh
# Render a job on this machine and on others that ssh reaches: start Ray with a new token on all of them, check
# them, render, and end what was started.
# usage: ssh.sh JOB.YAML HOST...      no options of `framefleet render`: only keys of JOB.YAML
# environment: VENV, the folder that framefleet is installed in, the same on all machines (~/framefleet)
#              ADDRESS, of this machine for the others; PORT (6379); SSH, the command (ssh)
#              SECRETS, a file of NAME=value lines for all machines (~/.framefleet-secrets)
#              RAY_TMPDIR, in SECRETS: where each machine gets a folder for Ray (/tmp); its path must be short
set -eu
job=${1:?usage: ssh.sh JOB.YAML HOST...}
shift
venv=${VENV:-$HOME/framefleet}
port=${PORT:-6379}
address=${ADDRESS:-$(hostname -I | cut -d' ' -f1)}
ssh=${SSH:-ssh}
secrets=${SECRETS:-$HOME/.framefleet-secrets}
umask 077
folder=$(mktemp -d "${TMPDIR:-/tmp}/ff.XXXXXX")
run=$(basename "$folder")
"$venv/bin/python" -c 'import secrets; print("RAY_AUTH_TOKEN=" + secrets.token_hex(32))' >"$folder/env"
echo RAY_AUTH_MODE=token >>"$folder/env"
# Ray drains a machine for this long after SIGTERM: longer than retries.drain_s (120).
echo RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=150 >>"$folder/env"
[ ! -r "$secrets" ] || cat "$secrets" >>"$folder/env"
# Ray lets every user write in its folder, so the one above it is closed, and nobody else can have made it before.
echo 'RAY_TMPDIR=${RAY_TMPDIR:-/tmp}/'"$run-ray" >>"$folder/env"
dir=$(. "$folder/env" && echo "$RAY_TMPDIR")
# The path of a socket has at most 107 bytes, and Ray's names below its folder take the rest.
[ ${#dir} -le 35 ] || {
    echo "error: $dir is too long for Ray's sockets: set RAY_TMPDIR to at most 20 characters, e.g. /tmp" >&2
    rm -rf "$folder"
    exit 2
}

# Ray runs as long as this script, below a shell whose number is noted. `ray stop` would end every Ray of a machine.
start='umask 077; ulimit -n 65536 2>/dev/null; set -a; . "$0"; rm -f "$0"; echo $$ >"$0.pid"; echo "$RAY_TMPDIR" >"$0.dir"
mkdir -m 700 "$RAY_TMPDIR" 2>/dev/null ||
    { [ -O "$RAY_TMPDIR" ] && [ ! -L "$RAY_TMPDIR" ] && chmod 700 "$RAY_TMPDIR"; } ||
    { echo "error: $RAY_TMPDIR cannot be made, or is not yours" >&2; exit 2; }
exec "$@" >"$0.log" 2>&1'
stop='kill $(cat "$0.pid") 2>/dev/null; while kill -0 $(cat "$0.pid"); do sleep 0.2; done 2>/dev/null
dir=$(cat "$0.dir") && rm -rf "${dir:?}/ray" && rmdir "$dir" 2>/dev/null; rm -f "$0.pid" "$0.log" "$0.dir"'
remote() { echo "./.framefleet-$run-$1"; } # in the home folder there, which several machines may share

end() {
    for host; do $ssh "$host" "sh -c '$stop' '$(remote "$host")'" || echo "warning: Ray on $host may still run" >&2; done
    sh -c "$stop" "$folder/head" || true
    rm -rf "$folder"
}
trap 'end "$@"' EXIT
driver=
stopped=
trap 'stopped=1; test -n "$driver" && kill -TERM "$driver"' TERM INT

cp "$folder/env" "$folder/head"
sh -c "$start" "$folder/head" "$venv/bin/ray" start --head --block --disable-usage-stats \
    --node-ip-address="$address" --port="$port" --include-dashboard=false &
for host; do
    # The token goes through ssh's input: an argument would be seen by every user of that machine.
    $ssh "$host" "umask 077; cat >'$(remote "$host")'" <"$folder/env" ||
        { echo "warning: $host cannot be reached; rendering without it" >&2; continue; }
    $ssh "$host" "sh -c '$start' '$(remote "$host")' '$venv/bin/ray' start --block --disable-usage-stats \
        --address=$address:$port" </dev/null &
done

set -a
. "$folder/env"
set +a
up() { "$venv/bin/python" -c "import ray; ray.init('$address:$port', log_to_driver=False, logging_level='ERROR')
raise SystemExit(sum(node['Alive'] for node in ray.nodes()) < $# + 1)" 2>/dev/null; }
tries=0
until [ -n "$stopped" ] || up "$@"; do
    tries=$((tries + 1))
    [ "$tries" -lt 20 ] || { echo "warning: not all machines are there; they are used as they join" >&2; break; }
    sleep 2
done

[ -n "$stopped" ] || "$venv/bin/framefleet" doctor --address "$address:$port" "$job" ||
    echo "warning: doctor found errors; rendering anyway" >&2
[ -z "$stopped" ] || exit 143
"$venv/bin/framefleet" render "$job" --set "fleet.address=$address:$port" &
driver=$!
[ -z "$stopped" ] || kill -TERM "$driver" # a signal that came before its number was there
# A signal ends only the waiting: wait again for the driver, which stores what is half done.
while wait "$driver"; code=$?; kill -0 "$driver" 2>/dev/null; do :; done
exit "$code"
