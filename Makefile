# make demo: three real hosts converged.  make test: everything that CI runs.  make check: before each commit.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# Compiled files are kept: without them every worker and every command would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help env system demo check test bench format clean

help:
	@sed -n 's/^# //p' Makefile

env: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt scripts/environment.sh
	@sh scripts/environment.sh "$(PYTHON)" "$(VENV)"

# What tests and lab need from the distribution; says what is missing where it cannot.
system: env
	@$(SUDO) sh scripts/system.sh

demo: env
	@sh scripts/demo.sh "$(BIN)"

check: env
	@sh scripts/check.sh "$(BIN)"

test: system check
	@$(SUDO) sh scripts/test.sh "$(BIN)"

bench: system
	@$(SUDO) $(BIN)/python -m benchmarks

format: env
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .cache dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
