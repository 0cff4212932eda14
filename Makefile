# Everything runs in .venv, which the first target that needs it makes.
#   make demo   train ResNet-18 on the embedded digits, a few minutes on 2 CPU cores
#   make test   the tests;  make lint  format, lint and types
#   make test-studies  every known study with small runs, which takes longer
#   make bench  speed against the peers (installs PyTorch), as ratios
#   make test-lowest, test-newest  the tests with the oldest and newest versions that are allowed
#   make constraints  the versions that all but these install, brought to the newest
#   make mutate  10,000 damaged files for all parsers

# A newer Python has a newer, on CPUs faster jax: make PYTHON=python3.13 demo
PYTHON ?= python3
# Another jax: make REQUIREMENTS=requirements.txt demo (GPU), requirements-tpu.txt (TPU)
REQUIREMENTS ?= requirements-cpu.txt
# make CONSTRAINTS= ... takes the newest versions
CONSTRAINTS ?= constraints.txt
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: demo test test-studies test-lowest test-newest lint bench mutate constraints format clean

demo: $(VENV)/installed
	$(RUN) launch.py --task=cifar --model=resnet18 --dataset=digits

test: $(VENV)/installed
	$(RUN) -m pytest -n 2

test-studies: $(VENV)/installed
	$(RUN) -m pytest -n 2 -m studies

# Old versions warn of what was deprecated since, which pyproject.toml makes an error.
test-lowest: .venv-lowest/installed
	.venv-lowest/bin/python -m pytest -n 2 -W ignore::DeprecationWarning

test-newest:
	$(MAKE) VENV=.venv-newest CONSTRAINTS= test

mutate: $(VENV)/installed
	$(RUN) -m tests.fuzzing.mutation

lint: $(VENV)/installed
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

bench: $(VENV)/bench
	$(RUN) -m benchmarks

format: $(VENV)/installed
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

$(VENV)/installed: $(REQUIREMENTS) requirements-common.txt requirements-dev.txt $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Athanor needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet -r $(REQUIREMENTS) -r requirements-dev.txt \
	  $(addprefix -c ,$(CONSTRAINTS))
	@touch $@

# uv, unlike pip, can choose the oldest versions; it lives apart, for it is no requirement.
.venv-lowest/bin/uv:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv

.venv-lowest/installed: .venv-lowest/bin/uv requirements-cpu.txt requirements-common.txt \
  requirements-dev.txt
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python \
	  --resolution lowest-direct -r requirements-cpu.txt -r requirements-dev.txt
	@touch $@

constraints: .venv-lowest/bin/uv
	grep '^#' constraints.txt > constraints.new
	.venv-lowest/bin/uv pip compile --quiet --universal --python-version 3.11 --upgrade \
	  --no-annotate --no-header requirements-cpu.txt requirements-dev.txt >> constraints.new
	mv constraints.new constraints.txt

$(VENV)/bench: $(VENV)/installed requirements-bench.txt
	$(RUN) -m pip install --quiet -r requirements-bench.txt
	@touch $@

clean:
	rm -rf .venv .venv-lowest .venv-newest .pytest_cache .ruff_cache .mypy_cache
