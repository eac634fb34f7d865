#!/bin/sh
# Render a job on this machine, and start it again when a store or worker was lost (exit code 3).
# usage: one_machine.sh JOB.YAML [OPTION...]      options of `framefleet render`, e.g. --limit 4
# environment: FRAMEFLEET (framefleet), PAUSE_S (60), MAX_RUNS (10)
set -u
job=${1:?usage: one_machine.sh JOB.YAML [OPTION...]}
shift
framefleet=${FRAMEFLEET:-framefleet}
ulimit -n 65536 2>/dev/null || true

# SIGTERM, as systemd and containers send it, goes to framefleet, which stores what is half done and ends.
driver=
stopped=
trap 'stopped=1; test -n "$driver" && kill -TERM "$driver"' TERM INT

# It takes no options of render, so what it finds may not concern this run: render decides, and reports to on_end.
"$framefleet" doctor "$job" || echo "warning: doctor found errors; rendering anyway" >&2
run=1
while :; do
    [ -z "$stopped" ] || exit 143
    "$framefleet" render "$job" "$@" &
    driver=$!
    [ -z "$stopped" ] || kill -TERM "$driver" # a signal that came before its number was there
    # A signal ends only the waiting: wait again for the driver, which stores what is half done.
    while wait "$driver"; code=$?; kill -0 "$driver" 2>/dev/null; do :; done
    [ "$code" -ne 3 ] || [ "$stopped" ] || [ "$run" -ge "${MAX_RUNS:-10}" ] && exit "$code"
    run=$((run + 1))
    driver=
    sleep "${PAUSE_S:-60}" & # so that a signal ends it
    driver=$!
    [ -z "$stopped" ] || kill "$driver"
    wait "$driver"
done
