# Everything that is done with this repository. Needs python3 (3.11 or newer, with venv) and make.
# `make PYTHON=/path/to/python3` takes another Python; ARGS="..." goes to the program that runs.

PYTHON ?= python3
BIN := .venv/bin
SETUP := @$(PYTHON) tools/setup.py
CODE := $(wildcard services gateway_http demo tools bench)
PIP_COMPILE := $(CURDIR)/$(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url \
  --no-emit-find-links --no-emit-trusted-host --strip-extras --allow-unsafe --no-header

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: run test setup check lint types gen gen-check guards docs bench soak mutants test-interop \
  lock release clean help dev-environment

run: ## start the gateway: the demo, or with CONFIG=tetrad.yaml, or in front of UPSTREAM=URL
	$(SETUP) run
	@exec $(BIN)/tetrad $(if $(CONFIG)$(UPSTREAM),serve,demo) $(if $(CONFIG),--config '$(CONFIG)') \
	  $(foreach url,$(UPSTREAM),--upstream '$(url)') $(ARGS)

test: setup ## the tests (ARGS="-k name" for some of them); under 8 minutes
	@$(BIN)/python -m pytest -q -n auto --dist loadfile --ignore=tests/interop --ignore=tests/mutants $(ARGS)

setup: ## .venv and .venv-gen from the lock files; quick when nothing changed
	$(SETUP) dev gen

check: setup lint types gen-check guards docs test ## what CI runs: all of the below, then test

lint: dev-environment ## ruff: rules and format
	@$(BIN)/ruff check && $(BIN)/ruff format --check

types: dev-environment ## mypy, strict
	@$(BIN)/mypy $(CODE)

gen-check: setup ## fail if gen/ is not what `make gen` writes
	@.venv-gen/bin/python tools/gen.py --check

guards: dev-environment ## buf lint, and the contract against proto/baseline/
	@$(BIN)/python -m tools.guards

docs: dev-environment ## the documentation as a site, in build/docs; any warning fails
	$(SETUP) docs
	@$(BIN)/python -m tools.docs
	@.venv-docs/bin/python -m sphinx -W --keep-going -n -q -E -b html -d build/docs-trees docs build/docs

gen: setup ## write gen/ from proto/
	@.venv-gen/bin/python tools/gen.py

bench: dev-environment ## benchmarks
	@test -f bench/__main__.py || { echo "make bench: not built yet (no bench/__main__.py)" >&2; exit 2; }
	@$(BIN)/python -m bench $(ARGS)

soak: dev-environment ## long runs that watch memory and sockets
	@test -f bench/soak.py || { echo "make soak: not built yet (no bench/soak.py)" >&2; exit 2; }
	@$(BIN)/python -m bench.soak $(ARGS)

mutants: dev-environment ## proof that the tests bite: each planted fault must fail one
	@test -f tests/mutants/__main__.py || \
	  { echo "make mutants: not built yet (no tests/mutants/__main__.py)" >&2; exit 2; }
	@$(BIN)/python -m tests.mutants $(ARGS)

test-interop: dev-environment ## suites with foreign clients and servers (ONLY=ci: those CI can run)
	@$(BIN)/python tools/interop.py $(ONLY)

lock: dev-environment ## rewrite the lock files from requirements/*.in (UPGRADE=1 takes newer versions)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] > (3, 11) and "make lock: run it with Python 3.11, the oldest that the pins must suit")'
	@cd requirements && for lock in run dev gen docs; do echo "locking $$lock.txt ..."; \
	  $(PIP_COMPILE) $(if $(UPGRADE),--upgrade) --output-file $$lock.txt $$lock.in || exit 1; done

release: gen-check ## make today's contract the baseline that later changes are compared with
	@$(BIN)/python -m tools.release $(if $(BREAKING),--breaking)

clean: ## remove the environments and everything built
	@rm -rf .venv .venv-gen .venv-docs build dist gen/dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this table
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

dev-environment:
	$(SETUP) dev
