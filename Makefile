# An index of what the kit does; the logic is in the scripts. `make` alone lists the targets.
# GPUS=0,1,2,3 on any target takes those GPUs, GPUS=cpu none; ARGS="--flag value" reaches the script behind the target.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
UV := $(VENV)/.bootstrap/bin/uv
ARGS ?=

# A target's own flags: INPUT_DIR=... becomes --input_dir ..., and so on; unset ones leave the script's default.
flag = $(if $($(1)),--$(2) "$($(1))")

ifdef RECIPE
export RECIPE
endif

ifdef GPUS
export GPUS
ifeq ($(GPUS),cpu)
export CUDA_VISIBLE_DEVICES :=
else
comma := ,
CUDA_VISIBLE_DEVICES ?= $(GPUS)
NPROC_PER_NODE ?= $(words $(subst $(comma), ,$(GPUS)))
export CUDA_VISIBLE_DEVICES NPROC_PER_NODE
endif
endif

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## install everything into .venv from the hashed lock

$(STAMP): requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v < (3, 13) else "error: Python %d.%d found, needs 3.10 to 3.12; give another with PYTHON=..." % v)'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	test -x $(UV) || { $(PYTHON) -m venv $(VENV)/.bootstrap && $(VENV)/.bootstrap/bin/pip install --quiet --require-hashes --requirement requirements/uv.txt; }
	$(UV) pip sync --quiet --compile-bytecode --python $(RUN) requirements/dev.txt
	$(UV) pip install --quiet --python $(RUN) --no-deps --editable .
	touch $@

demo: $(STAMP) ## the whole chain on the built-in world, without GPU or network (about a quarter of an hour)
	$(RUN) -m vasekit.demo $(ARGS)

test: $(STAMP) ## all tests, through the real scripts and the real ms-swift
	$(RUN) -m pytest $(ARGS)

test-fast: $(STAMP) ## the tests that take seconds
	$(RUN) -m pytest -m "not slow" $(ARGS)

lint: $(STAMP) ## ruff, shellcheck, shfmt
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/shellcheck model/*.sh filter/*.sh data/*.sh .ci/run
	$(VENV)/bin/shfmt -i 4 -d model/*.sh filter/*.sh data/*.sh .ci/run

format: $(STAMP) ## let ruff and shfmt write their form
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/shfmt -i 4 -w model/*.sh filter/*.sh data/*.sh .ci/run

classifier: $(STAMP) ## train the quality classifier: DATA_DIR= (with 0/ and 1/) OUTPUT=
	$(RUN) filter/model.py $(call flag,DATA_DIR,data_dir) $(call flag,OUTPUT,output) $(ARGS)

sort: $(STAMP) ## sort photographs by quality: SOURCE_DIR= TARGET_DIR= MODEL_PATH=
	$(RUN) filter/classifier.py $(call flag,SOURCE_DIR,source_dir) $(call flag,TARGET_DIR,target_dir) $(call flag,MODEL_PATH,model_path) $(ARGS)

BOTH = $(call flag,MODEL,model) $(call flag,VIEWS,views) $(call flag,VIEW_PATTERN,view_pattern) $(call flag,SCORES,scores) --yes
# With a classifier, what it takes for good photographs goes on; it lies beside the output folder (default: images3).
SORTED = $(if $(OUTPUT_DIR),$(OUTPUT_DIR)-sorted,images3)
filter: $(STAMP) ## [classifier,] CLIP quality filter, best view per vase: INPUT_DIR= OUTPUT_DIR= MODEL_PATH= THRESHOLD= KEEP= MODEL=
ifdef MODEL_PATH
	$(RUN) filter/classifier.py $(call flag,INPUT_DIR,source_dir) --target_dir "$(SORTED)" --model_path "$(MODEL_PATH)" $(call flag,SCORES,scores) --yes
endif
	$(RUN) filter/clipfilter1.py $(if $(MODEL_PATH),--input_dir "$(SORTED)/1",$(call flag,INPUT_DIR,input_dir)) \
	    $(call flag,OUTPUT_DIR,output_dir) $(call flag,THRESHOLD,threshold) $(call flag,KEEP,keep) $(BOTH) $(ARGS)
	$(RUN) filter/clipfilter2.py $(if $(OUTPUT_DIR),--input_dir "$(OUTPUT_DIR)/accepted" --output_dir "$(OUTPUT_DIR)") $(BOTH)

fetch: $(STAMP) ## the published data set and models from a hub, pinned and verified: NAME= SOURCE= OUTPUT_DIR=
	data/fetch.sh $(if $(NAME),$(NAME),dataset) $(call flag,SOURCE,source) $(call flag,OUTPUT_DIR,output_dir) $(ARGS)

data: $(STAMP) ## training files from photographs and records: IMAGES= RECORDS= OUTPUT= TURNTABLES=
	$(RUN) data/build.py $(call flag,IMAGES,images) $(call flag,RECORDS,records) $(call flag,OUTPUT,output) \
	    $(call flag,TURNTABLES,turntables) $(call flag,VIEWS,views) $(call flag,VIEW_PATTERN,view_pattern) $(ARGS)

validate: $(STAMP) ## check training files as the training scripts do: FILE= AGAINST= MODEL=
	$(RUN) data/validate.py "$(if $(FILE),$(FILE),data/video_training_dataset.json)" $(call flag,AGAINST,against) $(call flag,MODEL,model) $(ARGS)

lineage: $(STAMP) ## why is a vase in the data set, or why not: VASE= DATA=
	$(RUN) -m vasekit.lineage "$(VASE)" $(call flag,DATA,data) $(ARGS)

reward: $(STAMP) ## try the reward without training: COMPLETIONS= (completions.jsonl of a run, or a training file)
	$(RUN) -m vasekit.rewards --completions "$(if $(COMPLETIONS),$(COMPLETIONS),data/grpo_video_dataset.json)" $(ARGS)

doctor: $(STAMP) ## examine a run before time is spent: RECIPE=sft-paper MODEL= DATASET=
	$(RUN) -m vasekit.doctor "$(if $(RECIPE),$(RECIPE),sft-paper)" $(call flag,MODEL,model) $(call flag,DATASET,dataset) $(ARGS)

sft: $(STAMP) ## supervised fine-tuning: RECIPE= MODEL= DATASET= OUTPUT_DIR=
	model/sft.sh $(call flag,MODEL,model) $(call flag,DATASET,dataset) $(call flag,OUTPUT_DIR,output_dir) $(ARGS)

merge: $(STAMP) ## merge the newest adapter into its base: ADAPTERS= OUTPUT_DIR=
	model/merge.sh $(call flag,ADAPTERS,adapters) $(call flag,OUTPUT_DIR,output_dir) $(ARGS)

grpo: $(STAMP) ## reinforcement with the vase reward: RECIPE= MODEL= DATASET= OUTPUT_DIR=
	model/grpo.sh $(call flag,MODEL,model) $(call flag,DATASET,dataset) $(call flag,OUTPUT_DIR,output_dir) $(ARGS)

train: $(STAMP) ## sft -> merge -> grpo -> merge (the last where an adapter was trained): MODEL=
	model/sft.sh $(call flag,MODEL,model)
	model/merge.sh
	model/grpo.sh
	model/merge.sh --adapters output/grpo

hf2megatron: $(STAMP) ## Hugging Face to Megatron, needs a GPU: MODEL= OUTPUT_DIR=
	model/hf2megatron.sh $(call flag,MODEL,model) $(call flag,OUTPUT_DIR,output_dir) $(ARGS)

runs: $(STAMP) ## the runs below output/ in a table: FOLDER=
	$(RUN) -m vasekit.runs $(if $(FOLDER),"$(FOLDER)") $(ARGS)

builtin: $(STAMP) ## make the two built-in models again (half an hour)
	$(RUN) -m vasekit.builtin.make $(ARGS)

lock: ## write the hashed locks again from requirements/*.in
	test -x $(UV) || { $(PYTHON) -m venv $(VENV)/.bootstrap && $(VENV)/.bootstrap/bin/pip install --quiet --require-hashes --requirement requirements/uv.txt; }
	for name in uv base dev; do \
	    $(UV) pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-emit-index-url --no-header \
	        --no-annotate requirements/$$name.in --output-file requirements/$$name.txt; \
	done

clean: ## remove what demo and tests wrote, and caches
	rm -rf output/demo .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

.PHONY: help setup demo test test-fast lint format classifier sort filter fetch data validate lineage reward doctor sft merge grpo train hf2megatron runs builtin lock clean
