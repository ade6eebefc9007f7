#!/usr/bin/env bash
# Supervised fine-tuning of Qwen2.5-VL; the recipe (model/recipes/sft-*.yaml, default: paper) has the settings.
# Hardware: 24 GB for 7B; the paper took about 4 h on 8 x A100 80 GB. Any flag of `swift sft` can be appended.
#   CUDA_VISIBLE_DEVICES=0 model/sft.sh
#   GPUS=0,1,2,3 model/sft.sh --recipe fast --learning_rate 5e-5
#   GPUS=cpu model/sft.sh --model builtin --max_steps 10
set -euo pipefail
root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=python3
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

exec "$python" -m vasekit.launch sft --recipe "${RECIPE:-paper}" -- "$@"
