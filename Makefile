# Every target sets up .venv itself; nothing but python3 (>= 3.11) and make is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install train test test-slow lint type clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

install: $(INSTALLED) ## .venv with the tested set of packages

train: $(INSTALLED) ## trains an Atari agent in minutes, evaluates it beside a random policy
	$(BIN)/sextant train experiment=first_run
	$(BIN)/sextant evaluate run=$$(ls -td runs/first_run/*/* | head -n 1)

test: $(INSTALLED) ## the quick tests
	$(BIN)/python -m pytest -q -m "not slow"

test-slow: $(INSTALLED) ## the learning tests and the long proofs
	$(BIN)/python -m pytest -q -m slow

lint: $(INSTALLED) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(INSTALLED) ## mypy on the whole tree
	$(BIN)/mypy

clean: ## removes what the other targets made, except runs/
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
