#!/usr/bin/env bash
# Known vulnerabilities of the packages in a lock: docker/audit.sh PIP_AUDIT LOCK
# Exit status 0: none, or the database can't be asked (said so); 1: some, listed.
set -euo pipefail
said=$(mktemp)
trap 'rm -f "$said"' EXIT

status=0
"$1" --disable-pip --require-hashes --progress-spinner off --requirement "$2" 2>"$said" || status=$?
if [[ $status -ne 0 ]] && grep -qiE 'connection|resolve|timed out|unreachable|network' "$said"; then
    echo "audit: $2 was not examined, the database of vulnerabilities can't be reached" >&2
    exit 0
fi
cat "$said" >&2
exit "$status"
