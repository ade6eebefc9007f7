# make TARGET IN=docker: the same target, in the container. The demo and the tests have services of their own.
GOALS := $(or $(MAKECMDGOALS),help)
# Who starts it owns what it writes; root starts it as the image's user.
export VASE_UID ?= $(filter-out 0,$(shell id -u))
export VASE_GID ?= $(filter-out 0,$(shell id -g))
ifeq ($(GPUS),cpu)
export DEVICE := cpu
endif

$(GOALS):
	@mkdir -p data models output # the engine would make them for root
	docker compose run --rm $(if $(filter demo test,$@),$@ $(ARGS),shell make $@ $(filter-out IN=%,$(MAKEOVERRIDES)))

.PHONY: $(GOALS)
