#!/usr/bin/env bash
# What every container starts with: maps GPUS, checks the folders, says what it runs, and becomes it (tini is above it,
# and hands signals on).
set -euo pipefail

fail() {
    echo "error: $1" >&2
    exit 2
}

# GPUS=0,1 as in the Makefile; variables that are set already count more.
case ${GPUS:-} in
'') ;;
cpu) export CUDA_VISIBLE_DEVICES="" ;;
*)
    [[ $GPUS =~ ^[0-9]+(,[0-9]+)*$ ]] || fail "GPUS=$GPUS: give numbers such as 0,1, or cpu"
    commas=${GPUS//[^,]/}
    export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-$GPUS} NPROC_PER_NODE=${NPROC_PER_NODE:-$((${#commas} + 1))}
    ;;
esac

# A bundle that compose.yaml mounts here (CA_BUNDLE) goes before the certificates of the image.
if [[ -s /run/ca.pem ]]; then
    export SSL_CERT_FILE=/run/ca.pem REQUESTS_CA_BUNDLE=/run/ca.pem CURL_CA_BUNDLE=/run/ca.pem
fi

home=${VASE_HOME:-/workspace}
cache=${HF_HOME:-/cache}
for folder in "$home/output:OUTPUT" "$home/data:DATA" "$cache:CACHE"; do
    path=${folder%:*}
    [[ -r $path && -x $path ]] || fail "$path: can't be read as user $(id -u); ${folder##*:} in .env names it on the host"
    # What is not mounted is part of the image, which may be read-only: no concern of a command that writes nothing.
    mountpoint -q "$path" || continue
    # A cache that another user has filled would fail deep in a library.
    [[ $path == "$cache" ]] && deep=1 || deep=0
    foreign=$(find "$path" -maxdepth "$deep" -type d ! -writable -print -quit 2>/dev/null)
    [[ -n $foreign ]] || continue
    mend="in .env, set $(stat -c 'VASE_UID=%u VASE_GID=%g' "$foreign") (its owner's)"
    # The engine makes missing folders for root.
    [[ $(stat -c %u "$foreign") != 0 ]] || mend="on the host, chown the folder to $(id -u)"
    fail "$foreign can't be written as user $(id -u): $mend, or let ${folder##*:} in .env name one that this user can write"
done

[[ $# -gt 0 ]] || fail "nothing to run; give a command, as in: model/sft.sh --max_steps 10"
[[ $1 == *.py ]] && set -- python "$@"
commit=${VASE_COMMIT:-}
echo "vasekit ${commit:0:12}: $*" >&2
exec "$@"
