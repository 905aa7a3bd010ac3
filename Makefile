# Two targets matter: `make study` shows what loratlas does, `make test` shows that it works.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.up-to-date
# Two processes: they share two cores, and a file of tests stays in one of them.
TESTS := $(BIN)/python -m pytest -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help study test test-all bad-input faults consumers check format setup clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## Make .venv, or bring it up to date

# Wheels only, versions from constraints.txt; the stamp is written last, so that a set-up
# that was broken off is done again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; give one with make PYTHON=python3.12" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

study: $(STAMP)  ## Run the quickstart study on the bundled model and data
	$(BIN)/loratlas run studies/quickstart.yaml

test: check  ## Run the checks and the tests (under 6 minutes on 2 cores)
	$(TESTS) -m "not slow"

test-all: check  ## Run every test, the slow ones too
	$(TESTS)

bad-input: $(STAMP)  ## Ask everything that a person may get wrong (under 20 minutes on 2 cores)
	$(BIN)/python tools/bad_input.py

faults: $(STAMP)  ## Kill runs at 100 moments, stage each other fault (under 20 minutes on 2 cores)
	$(BIN)/python tools/faults

# Two packages without their dependencies: schemas and the code beside them need neither.
consumers: $(STAMP)  ## Hold exports against the packages of Axolotl and LLaMA-Factory (fetches 2 MB)
	rm -rf $(VENV)/consumers
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
		-d $(VENV)/consumers axolotl==0.19.0 llamafactory==0.9.5
	for package in axolotl llamafactory; do \
		$(BIN)/python -m zipfile -e $(VENV)/consumers/$$package-*.whl $(VENV)/consumers/$$package || exit 1; \
	done
	LORATLAS_CONSUMERS=$(CURDIR)/$(VENV)/consumers $(BIN)/python -m pytest tests/consumers

check: $(STAMP)  ## Run ruff, mypy --strict and import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## Remove .venv and caches; runs are kept
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
