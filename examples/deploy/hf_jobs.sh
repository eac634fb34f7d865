#!/bin/sh
# One job on a machine of Hugging Face Jobs, with a Ray of its own. More arguments go to `hf jobs run`.
# usage: hf_jobs.sh FOLDER [--dry-run ...]      FOLDER has job.yaml, without fleet.address; the output is in a store
# environment: FLAVOR (h200), IMAGE, SECRETS, a file of NAME=value lines, chmod 600 (~/.framefleet-secrets),
# SCHEDULE, to run it again and again ("0 1 * * *": every night at one, UTC)
# Exit codes 1 (rows failed, `until` fell short, the budget is spent) and 130 (`framefleet stop`) end as 0, else Jobs
# tries again.
set -eu
folder=${1:?usage: hf_jobs.sh FOLDER}
shift
if [ "${SCHEDULE:-}" ]; then how='scheduled run'; else how='run --detach'; fi
exec hf jobs $how --name framefleet --flavor "${FLAVOR:-h200}" --timeout 12h --attempts 3 \
    --secrets HF_TOKEN --secrets-file "${SECRETS:-$HOME/.framefleet-secrets}" \
    --volume "$folder:/job" "$@" \
    ${SCHEDULE:+"$SCHEDULE"} "${IMAGE:-registry.example.org/framefleet:0.2.0}" \
    sh -c 'trap "kill \$driver" TERM
framefleet render /job/job.yaml --set retries.checkpoint_every_s=300 &
driver=$!
while wait $driver; code=$?; kill -0 $driver 2>/dev/null; do :; done
case $code in 1 | 130) exit 0 ;; esac; exit $code'
