# make demo: bare hosts to a released app.  make test: everything that CI runs.  make check: before each commit.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# Keep compiled files. Without them, every worker and every command would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help env lock system demo check test bench format clean

help:
	@sed -n 's/^# //p' Makefile

env: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt scripts/environment.sh
	@sh scripts/environment.sh "$(PYTHON)" "$(VENV)"

# Writes constraints.txt again, after a dependency in a pyproject.toml changed. UPGRADE=1 takes the newest versions.
lock:
	@sh scripts/lock.sh "$(PYTHON)" "$(UPGRADE)"

# Installs the distribution's packages that tests and the lab need.
system: env
	@$(SUDO) sh scripts/system.sh

demo: env
	@sh scripts/demo.sh "$(BIN)"

check: env
	@sh scripts/check.sh "$(BIN)"

# The packages and the Python environment are installed at the same time: each uses one processor. Images are built while the
# checks run. If an image cannot be built, the tests that need it report why.
test:
	@$(SUDO) true  # it asks for the password here, not in the background
	@$(SUDO) sh scripts/system.sh & system=$$!; $(MAKE) --no-print-directory env; code=$$?; wait $$system && exit $$code
	@$(SUDO) sh scripts/images.sh "$(BIN)" & \
	  sh scripts/check.sh "$(BIN)" && $(SUDO) sh scripts/test.sh "$(BIN)"; code=$$?; wait; exit $$code

bench: system
	@$(SUDO) $(BIN)/python -m benchmarks

format: env
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .cache dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
