#!/bin/sh
# One job on a machine of Hugging Face Jobs, with a Ray of its own. More arguments go to `hf jobs run`.
# usage: hf_jobs.sh FOLDER [--dry-run ...]      FOLDER has job.yaml, without fleet.address; the output is in a store
# environment: FLAVOR (h200), IMAGE, SECRETS, a file of NAME=value lines, chmod 600 (~/.framefleet-secrets)
set -eu
folder=${1:?usage: hf_jobs.sh FOLDER}
shift
exec hf jobs run --detach --name framefleet --flavor "${FLAVOR:-h200}" --timeout 12h --attempts 3 \
    --secrets HF_TOKEN --secrets-file "${SECRETS:-$HOME/.framefleet-secrets}" \
    --volume "$folder:/job" "$@" \
    "${IMAGE:-registry.example.org/framefleet:0.1.0}" \
    framefleet render /job/job.yaml --set retries.checkpoint_every_s=300
