# An index of what the kit does; the logic is in the scripts. `make` alone lists the targets.
# GPUS=0,1,2,3 on any target takes those GPUs, GPUS=cpu none; ARGS="--flag value" reaches the script behind the target;
# IN=docker runs it in the container.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

ifeq ($(IN),docker)
include docker/in.mk
else

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
UV := $(VENV)/.bootstrap/bin/uv
BOOTSTRAP = test -x $(UV) || { $(PYTHON) -m venv $(VENV)/.bootstrap && $(VENV)/.bootstrap/bin/pip install --quiet --require-hashes --requirement requirements/uv.txt; }
# In an image KIT is the folder of the kit, and everything is installed.
STAMP := $(if $(KIT),,$(VENV)/.installed)
ARGS ?=
comma := ,

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
CUDA_VISIBLE_DEVICES ?= $(GPUS)
NPROC_PER_NODE ?= $(words $(subst $(comma), ,$(GPUS)))
export CUDA_VISIBLE_DEVICES NPROC_PER_NODE
endif
endif

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## install everything into .venv from the hashed lock

ifneq ($(STAMP),)
$(STAMP): requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v < (3, 13) else "error: Python %d.%d found, needs 3.10 to 3.12; give another with PYTHON=..." % v)'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(BOOTSTRAP)
	$(UV) pip sync --quiet --compile-bytecode --python $(RUN) requirements/dev.txt
	$(UV) pip install --quiet --python $(RUN) --no-deps --editable .
	touch $@
endif

demo: $(STAMP) ## the whole chain on the built-in world, without GPU or network (ten to fifteen minutes)
	$(RUN) -m vasekit.demo $(ARGS)

test: $(STAMP) ## all tests, through the real scripts and the real ms-swift
	$(RUN) -m pytest $(ARGS)

test-fast: $(STAMP) ## the tests that take seconds
	$(RUN) -m pytest -m "not slow" $(ARGS)

SHELLS := model/*.sh filter/*.sh data/*.sh docker/*.sh .ci/run
DOCKERFILES := Dockerfile.cuda docker/Dockerfile.cpu
lint: $(STAMP) ## ruff, shellcheck, shfmt, hadolint, the schema of compose files
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/shellcheck $(SHELLS)
	$(VENV)/bin/shfmt -i 4 -d $(SHELLS)
	$(VENV)/bin/hadolint --config docker/hadolint.yaml $(DOCKERFILES)
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml docker/gpu.yaml docker/cpu.yaml

format: $(STAMP) ## let ruff and shfmt write their form
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/shfmt -i 4 -w $(SHELLS)

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
	$(KIT)data/fetch.sh $(if $(NAME),$(NAME),dataset) $(call flag,SOURCE,source) $(call flag,OUTPUT_DIR,output_dir) $(ARGS)

data: $(STAMP) ## training files from photographs and records: IMAGES= RECORDS= OUTPUT= TURNTABLES=
	$(RUN) $(KIT)data/build.py $(call flag,IMAGES,images) $(call flag,RECORDS,records) $(call flag,OUTPUT,output) \
	    $(call flag,TURNTABLES,turntables) $(call flag,VIEWS,views) $(call flag,VIEW_PATTERN,view_pattern) $(ARGS)

validate: $(STAMP) ## check training files as the training scripts do: FILE= AGAINST= MODEL=
	$(RUN) $(KIT)data/validate.py "$(if $(FILE),$(FILE),data/video_training_dataset.json)" $(call flag,AGAINST,against) $(call flag,MODEL,model) $(ARGS)

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
	$(BOOTSTRAP)
	for name in uv base dev gpu megatron audit; do \
	    $(UV) pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-emit-index-url --no-header \
	        --no-annotate requirements/$$name.in --output-file requirements/$$name.txt; \
	done

COMMIT = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
BUILD = docker build --build-arg COMMIT=$(COMMIT) --build-arg VERSION=$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) \
    $(foreach name,BASE_IMAGE VASE_UID VASE_GID MEGATRON FLASH_ATTN,$(if $($(name)),--build-arg $(name)=$($(name)))) \
    $(foreach name,http_proxy https_proxy no_proxy,$(if $($(name)),--build-arg $(name))) $(if $(CA_BUNDLE),--secret id=ca$(comma)src=$(CA_BUNDLE))
lock_sha256 = --build-arg LOCK_SHA256=$(firstword $(shell sha256sum requirements/$(1).txt))
FOLDERS := data models output
image: ## the CUDA image vasekit:cuda: BASE_IMAGE= MEGATRON=1 FLASH_ATTN=1 CA_BUNDLE=
	mkdir -p $(FOLDERS) # the engine would make them for root
	$(BUILD) $(call lock_sha256,$(if $(filter 1,$(MEGATRON)),megatron,gpu)) --file Dockerfile.cuda --tag $(if $(IMAGE),$(IMAGE),vasekit:cuda) .

image-cpu: ## the image vasekit:cpu, for machines without a GPU and for the tests: BASE_IMAGE= CA_BUNDLE=
	mkdir -p $(FOLDERS)
	$(BUILD) $(call lock_sha256,dev) --file docker/Dockerfile.cpu --tag $(if $(IMAGE_CPU),$(IMAGE_CPU),vasekit:cpu) .

image-pin: ## write the digests of the base images into the Dockerfiles (asks the registry)
	for file in $(DOCKERFILES); do \
	    name=$$(sed -n 's/^ARG BASE_IMAGE=\([^@]*\).*/\1/p' $$file); \
	    digest=$$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$$name") || { echo "error: $$name: the registry can't be asked; $$file is as it was" >&2; exit 2; }; \
	    sed -i "s|^ARG BASE_IMAGE=.*|ARG BASE_IMAGE=$$name@$$digest|" $$file; \
	    echo "image-pin: $$file: $$name@$$digest"; \
	done

shell: ## a shell in the container
	docker compose run --rm shell

compose-check: ## are the compose files sound, for GPUs and without
	for device in gpu cpu; do DEVICE=$$device docker compose config --quiet && echo "compose-check: $$device is sound"; done

AUDIT := $(VENV)/.audit
$(AUDIT)/.installed: requirements/audit.txt | $(STAMP)
	test -x $(AUDIT)/bin/python || $(PYTHON) -m venv $(AUDIT)
	$(UV) pip sync --quiet --python $(AUDIT)/bin/python requirements/audit.txt
	touch $@

LOCK = requirements/$(if $(NAME),$(NAME),gpu).txt
sbom: $(AUDIT)/.installed ## a bill of materials (CycloneDX) of a lock: NAME=gpu (base, dev, megatron) OUTPUT=
	mkdir -p output
	$(AUDIT)/bin/cyclonedx-py requirements $(LOCK) --pyproject pyproject.toml --output-reproducible \
	    --output-file "$(if $(OUTPUT),$(OUTPUT),output/sbom-$(if $(NAME),$(NAME),gpu).cdx.json)"

audit: $(AUDIT)/.installed ## known vulnerabilities of a lock's packages: NAME=gpu (base, dev, megatron)
	$(RUN) docker/audit.py $(AUDIT)/bin/pip-audit $(LOCK)

clean: ## remove what demo and tests wrote, and caches
	rm -rf output/demo .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

.PHONY: help setup demo test test-fast lint format classifier sort filter fetch data validate lineage reward doctor sft merge grpo train hf2megatron runs builtin lock image image-cpu image-pin shell compose-check sbom audit clean
endif
