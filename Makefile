# make demo   set up, run the quickstart sweep, print its tables
# make test   set up, run every test
# make quick  the tests that take seconds
# make test-faults  kills, stops, full disks and the like, all of them; an hour on two cores
# make test-slurm  the tests of the slurm executor, on a SLURM started for them (root, Debian's slurm-wlm and munge)
# make check  lint, format, types
# make lock   resolve the dependencies again

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FREEZE = .lock/bin/python -m pip list --format=freeze --exclude pip --exclude grpo-d-harness | sed 's/+cpu$$//'

.PHONY: demo test quick check lock clean test-faults test-slurm

demo: $(VENV)/.run
	$(BIN)/harness run sweeps/quickstart.yaml

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

quick: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-faults: $(VENV)/.dev
	HARNESS_FAULTS=full OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s tests/faults

test-slurm: $(VENV)/.dev
	dir=$$(mktemp -d) && trap "tests/slurm/cluster.sh stop $$dir; rm -rf $$dir" EXIT && \
		export SLURM_CONF=$$dir/slurm.conf HARNESS_SLURM_TEST=$$dir OMP_NUM_THREADS=1 && \
		tests/slurm/cluster.sh start $$dir && $(BIN)/python -m pytest tests/slurm

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "needs Python 3.11 to 3.13: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "python3 -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 2; }

$(VENV)/.run: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	@touch $@

# Exact versions of what pyproject's ranges bring in. torch is 2.13.0: its CPU build where pip finds one.
lock:
	rm -rf .lock && $(PYTHON) -m venv .lock
	.lock/bin/python -m pip install --quiet torch==2.13.0 .
	$(FREEZE) > requirements.lock
	.lock/bin/python -m pip install --quiet '.[dev]'
	$(FREEZE) > requirements-dev.lock
	rm -rf .lock build

clean:
	rm -rf $(VENV) .lock build
