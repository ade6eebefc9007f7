#!/usr/bin/env bash
# Fetch the published data set and models from Hugging Face or ModelScope: pinned in data/fetch.lock.json, resumable,
# every checksum verified. Needs a network and room on the disk (7B models: about 17 GB); --help lists the names.
#   data/fetch.sh dataset vasevlm-7b
#   data/fetch.sh qwen-7b --source modelscope
#   data/fetch.sh Qwen/Qwen2.5-VL-3B-Instruct --output_dir ~/models/qwen-3b --dry_run
#   HF_ENDPOINT=https://MIRROR https_proxy=http://PROXY:3128 data/fetch.sh qwen-7b
set -euo pipefail
root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=python3
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

exec "$python" -m vasekit.fetch "$@"
