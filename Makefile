# Everything runs in .venv, which the first target that needs it makes.
#   make demo   train ResNet-18 on the embedded digits, a few minutes on 2 CPU cores
#   make test   the tests;  make lint  format, lint and types
#   make test-studies  every known study with small runs, which takes longer
#   make bench  speed against the peers (installs PyTorch), as ratios

# A newer Python has a newer, on CPUs faster jax: make PYTHON=python3.13 demo
PYTHON ?= python3
# Another jax: make REQUIREMENTS=requirements.txt demo (GPU), requirements-tpu.txt (TPU)
REQUIREMENTS ?= requirements-cpu.txt
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test test-studies lint bench format clean

demo: $(VENV)/installed
	$(RUN) launch.py --task=cifar --model=resnet18 --dataset=digits

test: $(VENV)/installed
	$(RUN) -m pytest -n 2

test-studies: $(VENV)/installed
	$(RUN) -m pytest -n 2 -m studies

lint: $(VENV)/installed
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

bench: $(VENV)/bench
	$(RUN) -m benchmarks

format: $(VENV)/installed
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

$(VENV)/installed: $(REQUIREMENTS) requirements-common.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Athanor needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet -r $(REQUIREMENTS) -r requirements-dev.txt
	@touch $@

$(VENV)/bench: $(VENV)/installed requirements-bench.txt
	$(RUN) -m pip install --quiet -r requirements-bench.txt
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
