# The verbs that people and CI share. Needs Python >= 3.11 and make; everything else comes from the lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
export UV_PYTHON_DOWNLOADS := never

.PHONY: help setup demo test unit faults outages soak check docs lock bench clean

help: ## Show these verbs
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## Make .venv from the lock and install spanfold into it

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## The main job on a real program: publish, keep, fold, query
	$(BIN)/spanfold demo

test: setup ## The whole test suite on a real Kafka and a real Postgres; JOBS=2 of it at once
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

unit: setup ## The tests that need no server and start no process
	$(BIN)/python -m pytest -n $(JOBS) -m unit

FAULTS = $(BIN)/python -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(RESUME),--resume) $(if $(SUSPENSIONS),--suspensions)

faults: setup ## Schedules of faults under load, then tables compared with the log: RUNS=40, or SEED=7 alone (of snapshot workers: SNAPSHOTS=1); SUSPENSIONS=1 suspends too; RESUME=1 goes on
	$(if $(SEED)$(RESUME),,SPANFOLD_TEST_FAULTS=1 $(BIN)/python -m pytest tests/faults tests/rebuilds/test_kills.py tests/rebuilds/test_under_load.py)
	$(if $(SEED)$(RESUME),,SPANFOLD_TEST_EVENTS=400000 $(BIN)/python -m pytest --timeout 1800 tests/rebuilds/test_verify.py tests/snapshots/test_rebuild.py)
	$(if $(SNAPSHOTS),,$(FAULTS) --runs $(or $(RUNS),40))
	$(if $(SEED),$(if $(SNAPSHOTS),$(FAULTS) --snapshots),$(FAULTS) --snapshots --runs $$(( ($(or $(RUNS),40) + 3) / 4 )))

outages: setup ## A stack under load through a read-only database, a poisoned projection, hostile records, a killed Kafka, a full disk (as root), a lost log
	$(BIN)/python -m tests.outages

soak: setup ## An hour of 500 events/s across a midnight: MINUTES=60
	$(BIN)/python -m tests.outages.soak --minutes $(or $(MINUTES),60)

check: setup ## Format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup ## Generate docs/settings.md from the settings class, and docs/views.md from a prepared database
	$(BIN)/python -m spanfold.language.settings_reference > docs/settings.md
	$(BIN)/python -m spanfold.operations.view_reference > docs/views.md

bench: setup ## The projector beside the overlapped baseline, alternating runs: WORKLOAD=traces, or WORKLOAD=spans
	$(BIN)/python -m benchmarks --workload $(or $(WORKLOAD),traces)

UV = $(firstword $(wildcard $(BIN)/uv) uv)

lock: ## Resolve the dependencies anew: what pyproject.toml adds; with UPGRADE=1 also newer versions of all others
	$(UV) pip compile --quiet --universal --generate-hashes --all-extras --python-version 3.11 $(if $(UPGRADE),--upgrade) pyproject.toml -o requirements.lock

clean: ## Remove what setup and the tests made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
