# Every target prepares .venv first (tools/bootstrap.py): the first time that takes minutes and says so,
# later it takes a moment and says nothing.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules
# Without compiled bytecode every process would compile all of Airflow again.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= $(or $(shell for p in python3 python3.11; do $$p -c '' 2>/dev/null && echo $$p && break; done),python3)
BIN := .venv/bin
SOURCES := $(wildcard include dags plugins tests bench tools docker config)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^## /{print "\n" substr($$0, 4)} /^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## Use it

.PHONY: demo
demo: setup ## Run the whole loop. DOCS=<folder> LLM=<url> MODEL=<name> LLM_KEY_FILE=<file> DEMO_EXIT=1
	@set --; \
	if [[ -n "$${DOCS:-}" ]]; then set -- "$$@" --docs "$$DOCS"; fi; \
	if [[ -n "$${LLM:-}" ]]; then set -- "$$@" --llm "$$LLM"; fi; \
	if [[ -n "$${MODEL:-}" ]]; then set -- "$$@" --model "$$MODEL"; fi; \
	if [[ -n "$${LLM_KEY_FILE:-}" ]]; then set -- "$$@" --llm-key-file "$$LLM_KEY_FILE"; fi; \
	if [[ -n "$${DEMO_EXIT:-}" && "$${DEMO_EXIT}" != 0 ]]; then set -- "$$@" --exit; fi; \
	exec $(BIN)/llmops demo "$$@"

.PHONY: drill
drill: setup ## Attack the running demo's releases (KILLS=100 does so at length and writes docs/reliability.md)
	@$(BIN)/llmops drill $(if $(KILLS),--kills $(KILLS) --report docs/reliability.md)

.PHONY: up
up: setup ## Start the local stack and leave it running
	@$(BIN)/llmops stack up

.PHONY: status
status: setup ## Show the processes of the local stack
	@$(BIN)/llmops stack status

.PHONY: stop
stop: ## Stop the local stack; its data stays
	@if [[ -x $(BIN)/llmops ]]; then $(BIN)/llmops stack down; else echo "nothing is installed, so nothing runs"; fi

## Work on it

.PHONY: setup
setup: ## Create .venv, or renew it when the lock changed; otherwise do nothing
	@$(PYTHON) tools/bootstrap.py setup

.PHONY: test
test: setup ## Run the tests (ARGS="-k words" picks some)
	@$(BIN)/python tools/test.py $(ARGS)

.PHONY: test-long
test-long: setup ## Run what takes minutes: the containers' services, and the drill at length
	@$(BIN)/python -m pytest -m long --durations=5 $(ARGS)

.PHONY: test-fast
test-fast: setup ## Run the tests that need neither the whole stack nor more than a minute
	@$(BIN)/python -m pytest -n 2 -m "not slow and not stack and not long" $(ARGS)

.PHONY: lint
lint: setup ## Check style, types and layers
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: check
check: lint test-fast ## Everything that a change must pass before it is proposed

.PHONY: format
format: setup ## Format the code and apply the safe fixes
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

.PHONY: docs
docs: setup ## Write the pages that are generated from the code
	@$(BIN)/python tools/configuration_docs.py

.PHONY: bench
bench: setup ## Measure the figures that the documentation states
	@$(BIN)/python -m bench $(ARGS)

.PHONY: lock
lock: setup ## Write the requirements files from pyproject.toml (UPGRADE=1 takes newer versions)
	@$(BIN)/python tools/lock.py $(if $(UPGRADE),--upgrade)

.env: ## Generate the secrets that docker-compose.yaml needs (never overwritten)
	@umask 077 && $(PYTHON) tools/compose_env.py > .env.partial && mv .env.partial .env
	@echo "wrote .env: keep it out of version control"

.PHONY: clean
clean: ## Delete caches and the environment; the stack's data stays
	@$(MAKE) --no-print-directory stop
	rm -rf .venv .tools .llmops-test-cache .bench build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: reset
reset: ## Stop the stack and delete all its data: documents, models, releases, answers
	@$(MAKE) --no-print-directory stop
	rm -rf .llmops
