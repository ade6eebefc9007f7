#!/usr/bin/env bash
# Supervised fine-tuning (LoRA) of Qwen2.5-VL, with the settings of the VaseVQA-3D paper.
# Hardware: 24 GB for 7B; the paper took about 4 h on 8 x A100 80 GB. Any flag of `swift sft` can be appended.
#   CUDA_VISIBLE_DEVICES=0 model/sft.sh
#   GPUS=0,1,2,3 model/sft.sh --model models/Qwen2.5-VL-3B-Instruct --learning_rate 5e-5
#   GPUS=cpu model/sft.sh --model builtin --max_steps 10
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=python3
export MAX_PIXELS=${MAX_PIXELS:-1003520}
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

flags=(
    --model "$root/models/Qwen2.5-VL-7B-Instruct"
    --dataset "$root/data/video_training_dataset.json"
    --output_dir "$root/output/sft"
    --tuner_type lora --lora_rank 8 --lora_alpha 32 --target_modules all-linear --freeze_vit true
    --torch_dtype bfloat16 --num_train_epochs 2 --learning_rate 1e-4 --warmup_ratio 0.05 --max_length 4096
    --per_device_train_batch_size 1 --per_device_eval_batch_size 1 --gradient_accumulation_steps 16
    --split_dataset_ratio 0.01 --eval_steps 100 --save_steps 100 --save_total_limit 5 --logging_steps 5
    --dataloader_num_workers 4 --check_model false --add_version false
)
exec "$python" -m vasekit.launch sft "${flags[@]}" -- "$@"
