# Wraps the plain commands that README.md gives for machines without make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: study test types types-of-tests quick ui notebook bench faults mutants report clean

study: $(STAMP)
	$(BIN)/sgdstudy study

test: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MAKE) --no-print-directory -j 2 types types-of-tests
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

types: $(STAMP)
	$(BIN)/mypy

types-of-tests: $(STAMP)
	$(BIN)/mypy --config-file tests/mypy.ini

# before each commit: under a minute on two cores
quick: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not server and not faults"

ui: $(STAMP)
	$(BIN)/sgdstudy ui

# the tour, in Jupyter, which is not of the test environment
notebook: $(VENV)/.notebook
	$(BIN)/jupyter lab docs/tour.ipynb

report: $(STAMP)
	$(BIN)/sgdstudy report

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/bench.py

faults: $(STAMP)
	$(BIN)/python benchmarks/faults/faults.py

mutants: $(STAMP)
	$(BIN)/python benchmarks/mutants/run.py

$(VENV)/.notebook: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[notebook]"
	$(BIN)/python -c "open('$(VENV)/.notebook', 'w').close()"

# Cockpit and BackPACK without their dependencies: torchvision would bring another torch
$(VENV)/.bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps backpack-for-pytorch cockpit-for-pytorch
	$(BIN)/python -c "open('$(VENV)/.bench', 'w').close()"

# set up again only when what is installed has changed
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	$(BIN)/python -c "open('$(STAMP)', 'w').close()"

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
