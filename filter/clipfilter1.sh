#!/usr/bin/env bash
# The quality filter by menu: sorts photographs into complete vases and fragments.
#   filter/clipfilter1.sh                    asks what to do
#   filter/clipfilter1.sh WORD [FLAGS]       does it: analyze, auto, threshold X, cpu, gpu N, quick, or the menu's number
# FLAGS go to clipfilter1.py. Runs on one GPU, or on the CPU where there is none.
set -euo pipefail

here=$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)
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
    fail "no terminal to ask on; give one of: analyze, auto, threshold X, cpu, gpu N, quick"
fi

# The next word if it looks like a number, else what the person answers.
number() {
    if [[ ${1-} =~ ^[-+]?[0-9.]+$ ]]; then
        echo "$1"
    else
        [[ -t 0 ]] || fail "no terminal to ask on; give the $2, as in: $(basename "$0") $3"
        read -rp "$2: " answer
        echo "$answer"
    fi
}

flags=()
case $choice in
1 | analyze) flags+=(--analyze_only) ;;
2 | auto) ;;
3 | threshold)
    if [[ " $* " != *" --threshold"[=\ ]* ]]; then
        value=$(number "${1-}" threshold "threshold 0.15")
        flags+=(--threshold "$value")
        [[ $value != "${1-}" ]] || shift
    fi
    ;;
4 | cpu) flags+=(--device cpu) ;;
5 | gpu)
    index=1
    if [[ $choice == gpu ]]; then
        index=$(number "${1-}" "GPU" "gpu 0")
        [[ $index != "${1-}" ]] || shift
    fi
    flags+=(--device "cuda:$index")
    ;;
6 | quick) flags+=(--analyze_only --sample_size 100) ;;
*) fail "$choice: give analyze, auto, threshold X, cpu, gpu N, quick, or a number from 1 to 6" ;;
esac

exec "$PYTHON" "$here/clipfilter1.py" "${flags[@]}" "$@"
