# Each target builds what it needs in .venv first. PYTHON picks the interpreter (3.11 or newer).
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-realtime test-lerobot check docs format clean

help:
	@echo "make demo    the whole line on a simulated arm: collect, train, evaluate, package, loop -> outputs/lift/report.html"
	@echo "make test    the test suite"
	@echo "make test-slow      the tests that take longest: bundles of every kind of policy, learning to convergence"
	@echo "make test-realtime  whole ROS graphs against the clock, on an otherwise idle machine"
	@echo "make test-lerobot   against LeRobot itself, in an environment of its own (Python 3.12, 5 GB); skips where that is not to be had"
	@echo "make check   ruff, mypy --strict, import rules"
	@echo "make docs    the documentation site -> build/site/index.html; a broken link fails"
	@echo "make format  let ruff reformat"
	@echo "make clean   remove .venv and caches (never data)"

install: $(READY)

$(READY): pyproject.toml constraints.txt .ci/system_libs.sh ros_ws/src/robot_rl_ros/setup.py
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed; install it or run: make PYTHON=/path/to/python3" >&2; exit 1; }
	@bash .ci/system_libs.sh
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		echo "error: $(PYTHON) cannot make a virtual environment; on Debian/Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,sim,lerobot,hdf5,view,docs,dev]'
	@# gym-pusht asks for opencv-python, whose files would overwrite the headless build's; it needs none of the rest.
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt gym-pusht
	@# ROS 2 comes from wheels, for Linux and Python 3.11 and 3.12; without them the tests of the ROS graph skip.
	@if [ "$$(uname -s)" = Linux ] && $(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then \
		$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[ros,bags]' && \
		$(BIN)/python -m pip install --quiet --no-deps -e ros_ws/src/robot_rl_ros; fi
	@touch $(READY)

demo: $(READY)
	$(BIN)/robot-rl demo

# Tests over ROS topics run alone; one that failed on a stalled machine may show itself once more.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --ignore tests/ros -m "not slow"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/ros -m "not realtime and not slow" || \
		OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/ros --last-failed --last-failed-no-failures none

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --ignore tests/ros -m slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/ros -m slow || \
		OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/ros -m slow --last-failed --last-failed-no-failures none

test-realtime: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/ros -m realtime

test-lerobot:
	@bash .ci/test_lerobot.sh

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info
