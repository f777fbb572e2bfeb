# Everything in an environment of its own: .venv. `make demo` and `make test` set it up on a fresh machine.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
DOCS := $(VENV)/docs-installed
BENCHMARKS := $(VENV)/bench-installed

.PHONY: install demo test slow applications fuzz check format bench docs docs-serve clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Everloop needs Python 3.11 or newer; give one with make PYTHON=..."'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,datasets,dev]'
	@touch $(STAMP)

demo: install
	$(BIN)/everloop demo

test: install
	$(BIN)/python -m pytest -m 'not slow' -n auto --dist loadfile

slow: install
	$(BIN)/python -m pytest -m slow -s

# Every application in full, on real data; writes docs/results.md. Hours. Some only with APPLICATIONS='tags music'.
applications: install
	$(BIN)/python benchmarks/applications.py $(APPLICATIONS)

# Kernels, layers and drop-ins against what they should be, on random ones, ten minutes each at most. More with
# FUZZ='--seconds 3600'.
fuzz: install
	$(BIN)/python tests/fuzz_kernels.py $(FUZZ)
	$(BIN)/python tests/fuzz_layers.py $(FUZZ)
	$(BIN)/python tests/fuzz_drop_ins.py $(FUZZ)

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Speed beside torch, onnxruntime, jax and loops in Python; takes a while. Options with BENCH='--class step --threads 1'.
bench: $(BENCHMARKS)
	@mkdir -p build
	$(BIN)/everloop bench --json build/bench.json $(BENCH)

# The site, in build/site. Every warning is an error, and every link is followed.
docs: $(DOCS)
	$(BIN)/python docs/site/build.py

docs-serve: $(DOCS)
	$(BIN)/python docs/site/build.py --serve

$(DOCS): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $(DOCS)

$(BENCHMARKS): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $(BENCHMARKS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
