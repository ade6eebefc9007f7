#!/usr/bin/env bash
# Convert a Hugging Face checkpoint to Megatron's format and test the precision. Needs a CUDA GPU and Megatron.
#   model/hf2megatron.sh --model output/sft-merged --output_dir output/sft-mcore
#   model/hf2megatron.sh --to_hf true --mcore_model output/sft-mcore        (the way back)
set -euo pipefail
root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=python3
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

home=${VASE_HOME:-$root}
flags=(
    --model "$home/models/Qwen2.5-VL-3B-Instruct"
    --output_dir "$home/output/Qwen2.5-VL-3B-Instruct-mcore"
    --to_mcore true --torch_dtype bfloat16 --test_convert_precision true
)
exec "$python" -m vasekit.launch hf2megatron "${flags[@]}" -- "$@"
