#!/usr/bin/env bash
# Reinforcement (GRPO) with the vase reward; the recipe (model/recipes/grpo-*.yaml, default: paper) has the settings.
# Hardware: the paper took about 20 h on 8 x A100 80 GB; a 7B model does not fit on one card of 32 GB.
#   GPUS=0,1,2,3,4,5,6,7 model/grpo.sh
#   GPUS=0 model/grpo.sh --recipe fast
#   GPUS=cpu model/grpo.sh --model builtin --max_steps 10
set -euo pipefail
root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=python3
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

exec "$python" -m vasekit.launch grpo --recipe "${RECIPE:-paper}" -- "$@"
