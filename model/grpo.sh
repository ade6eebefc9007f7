#!/usr/bin/env bash
# Reinforcement (GRPO, full tuning) with the vase reward, with the settings of the VaseVQA-3D paper.
# Hardware: the paper took about 20 h on 8 x A100 80 GB; a 7B model does not fit on one card of 32 GB.
#   GPUS=0,1,2,3,4,5,6,7 model/grpo.sh
#   GPUS=cpu model/grpo.sh --model builtin --max_steps 10
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=python3
export MAX_PIXELS=${MAX_PIXELS:-1003520}
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

flags=(
    --rlhf_type grpo
    --model "$root/output/sft-merged"
    --dataset "$root/data/grpo_video_dataset.json"
    --output_dir "$root/output/grpo"
    --reward_funcs external_vase_acc
    --system "$root/model/prompt.txt"
    --tuner_type full --torch_dtype bfloat16 --num_train_epochs 1 --learning_rate 1e-6 --warmup_ratio 0.01
    --num_generations 4 --temperature 1.0 --beta 0.001 --max_completion_length 256 --num_iterations 1
    --per_device_train_batch_size 1 --per_device_eval_batch_size 4 --gradient_accumulation_steps 4
    --split_dataset_ratio 0.01 --eval_steps 1000 --save_steps 300 --save_total_limit 10 --logging_steps 1
    --log_completions true --dataloader_num_workers 4 --report_to tensorboard --check_model false --add_version false
)
exec "$python" -m vasekit.launch grpo "${flags[@]}" -- "$@"
