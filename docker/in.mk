# make TARGET IN=docker: the same target, in the container. The demo and the tests have services of their own.
GOALS := $(or $(MAKECMDGOALS),help)
# Who starts it owns what it writes, unless .env says otherwise; root starts it as the image's user.
ifeq ($(shell grep -s '^VASE_UID=' .env)$(filter 0,$(shell id -u)),)
export VASE_UID ?= $(shell id -u)
export VASE_GID ?= $(shell id -g)
endif
ifeq ($(GPUS),cpu)
export DEVICE := cpu
endif

$(GOALS):
	@mkdir -p data models output # the engine would make them for root
	docker compose run --rm $(if $(filter demo test,$@),$@ $(ARGS),shell make $@ $(filter-out IN=%,$(MAKEOVERRIDES)))

.PHONY: $(GOALS)
