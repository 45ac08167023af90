# Targets of `rpa`. `make help` lists them; variables can be set on the command line: make demo SEED=1
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && { echo $$p; break; }; done)
PY := $(VENV)/bin/python
RPA := $(VENV)/bin/rpa
READY := $(VENV)/.ready

SEED ?= 0
SPLIT ?= dataset_split.json
INPUT ?= runs/demo/clips
OUTPUT ?= runs/augment-local
VERSIONS ?= 3
ARGS ?=
STEPS ?=

.PHONY: help init check fix train augment-local demo test test-slow bench docs lab tiny gait-weights clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

init: $(READY) ## create the virtual environment and install everything

$(READY): constraints.txt settings.ini setup.py
	@bash tools/install.sh "$(PYTHON)" "$(VENV)"
	@touch $@

check: $(READY) ## linting and type checking
	@$(PY) tools/check.py lint types

fix: $(READY) ## auto-fix what can be fixed, clean the notebooks, export them to rpa/
	$(VENV)/bin/ruff check --fix -q nbs tests bench tools || true
	$(VENV)/bin/nbdev_clean
	$(VENV)/bin/nbdev_export
	$(PY) tools/build_readme.py

train: $(READY) ## train with dataset_split.json; SPLIT=… and ARGS="--epochs 3 …" change that
	$(RPA) train --split-json "$(SPLIT)" --output-dir trained_model $(ARGS)

augment-local: $(READY) ## try the augmentation on local clips; INPUT=… OUTPUT=… VERSIONS=…
	$(RPA) augment --input "$(INPUT)" --output "$(OUTPUT)" --versions $(VERSIONS) $(ARGS)

demo: $(READY) ## the whole chain on rendered runners and one real clip; SEED=1 gives other runners
	$(RPA) demo --seed $(SEED)

test: $(READY) ## everything that must hold before a change is kept; STEPS="lint pytest" runs some
	@$(PY) tools/check.py $(STEPS)

test-slow: $(READY) ## the heavy proofs: kills, shuffled labels, several seeds
	$(PY) -m pytest -m slow $(ARGS)

bench: $(READY) ## speed, each figure against a named alternative in the same run
	$(PY) bench/run.py $(ARGS)

docs: $(READY) ## the site, into _docs/
	@if command -v quarto >/dev/null; then $(VENV)/bin/nbdev_docs; else $(PY) tools/build_docs.py; fi

lab: $(READY) ## open the notebooks
	cd nbs && ../$(VENV)/bin/jupyter lab

tiny: $(READY) ## pretrain the small VideoMAE that ships in rpa/weights/tiny (long; goes on where it stopped)
	$(PY) tools/make_tiny.py $(ARGS)

gait-weights: $(READY) ## train the gait model that ships in rpa/weights/gait (a quarter of an hour; goes on where it stopped)
	$(PY) tools/make_gait.py $(ARGS)

clean: ## remove what is built: site, caches, egg-info; keeps runs/ and the environment
	rm -rf _docs _proc build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find rpa tests bench tools nbs -name __pycache__ -type d -prune -exec rm -rf {} +
