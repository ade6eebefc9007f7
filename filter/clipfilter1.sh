#!/usr/bin/env bash
# The quality filter by menu: sorts photographs into complete vases and fragments.
#   filter/clipfilter1.sh             asks what to do
#   filter/clipfilter1.sh 2 [FLAGS]   does it without asking; FLAGS go to clipfilter1.py
# Runs on one GPU, or on the CPU where there is none.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${PYTHON:=$([[ -x $here/../.venv/bin/python ]] && echo "$here/../.venv/bin/python" || echo python3)}"

fail() {
    echo "error: $1" >&2
    exit 2
}

menu() {
    cat <<'MENU'
Quality filter (images3/1 -> filtered_vases)
  1) Analyse the distribution of quality only
  2) Filter automatically (analyse, then filter)
  3) Filter at a threshold of your own
  4) Filter on the CPU
  5) Filter on GPU 1
  6) Analyse quickly (100 images)
MENU
}

if [[ $# -gt 0 ]]; then
    choice=$1
    shift
elif [[ -t 0 ]]; then
    menu
    read -rp "Choose [1-6]: " choice
else
    fail "no terminal to ask on; give a number from 1 to 6 as the first argument"
fi

flags=()
case $choice in
1) flags+=(--analyze_only) ;;
2) ;;
3)
    if [[ ${1-} =~ ^[-+]?[0-9.]+$ ]]; then
        flags+=(--threshold "$1")
        shift
    elif [[ " $* " != *" --threshold"[=\ ]* ]]; then
        [[ -t 0 ]] || fail "no terminal to ask on; give the threshold: $0 3 0.15"
        read -rp "Threshold: " threshold
        flags+=(--threshold "$threshold")
    fi
    ;;
4) flags+=(--device cpu) ;;
5) flags+=(--device cuda:1) ;;
6) flags+=(--analyze_only --sample_size 100) ;;
*) fail "option $choice: give a number from 1 to 6" ;;
esac

exec "$PYTHON" "$here/clipfilter1.py" "${flags[@]}" "$@"
