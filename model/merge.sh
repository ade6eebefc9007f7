#!/usr/bin/env bash
# Merge the newest LoRA adapter of a run into its base model: output/sft -> output/sft-merged.
#   model/merge.sh
#   model/merge.sh --adapters output/grpo            (-> output/grpo-merged)
#   model/merge.sh --adapters ./output/checkpoint-600 --output_dir output/checkpoint-merged
set -euo pipefail
root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=python3
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

exec "$python" -m vasekit.launch merge --adapters "${VASE_HOME:-$root}/output/sft" --merge_lora true -- "$@"
