# Everything runs in .venv, which is made on first use and again when pyproject.toml or requirements/ change.
# On a machine with no more than Python 3.11 and make, `make demo` and `make test` work as they stand.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/installed-$(shell cat pyproject.toml requirements/*.txt | cksum | cut -d' ' -f1)
JOBS ?= 2
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast lint fuzz update-goldens bench bench-watch audit attack clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F '\t' '{printf "make %-16s %s\n", $$1, $$2}'

$(STAMP):
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/losses.txt -r requirements/training.txt
	rm -f .venv/installed-*
	touch $@

demo: $(STAMP) ## check every loss of the gallery and print the summary
	$(BIN)/python examples/gallery/summary.py

test: lint ## lint, types, import rules and all tests
	$(BIN)/python -m pytest -n $(JOBS)

test-fast: $(STAMP) ## the tests that take milliseconds
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow"

lint: $(STAMP) ## ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fuzz: $(STAMP) ## the property tests, with many more examples and fresh seeds
	$(BIN)/python -m pytest -n $(JOBS) -m hypothesis --hypothesis-profile=fuzz
	$(BIN)/python -m tests.soundness.fuzz --jobs $(JOBS)

update-goldens: $(STAMP) ## write the expected files anew; review the diff
	$(BIN)/python -m pytest -q tests/report --update-goldens
	$(BIN)/python -m tests.watch.incidents
	$(BIN)/python -m tests.frontends.torch_snippets
	$(BIN)/python -m tests.conformance.losses.golden
	$(BIN)/python examples/gallery/summary.py --write

bench: $(STAMP) ## time imports, bounds, branch and prune, tensor sizes and whole checks
	$(BIN)/python benchmarks/run.py

bench-watch: $(STAMP) ## what watching a training run costs and finds, next to other tools, in all frameworks: five minutes
	$(BIN)/python -m benchmarks.watch.run

audit: $(STAMP) ## check the losses of well-known packages and write benchmarks/audit; goes on where it stopped
	$(BIN)/python benchmarks/audit/run.py --jobs $(JOBS)

ATTACK := $(BIN)/python -m tests.soundness.adversarial --jobs $(JOBS)

attack: $(STAMP) ## attack what is called safe: collection, gallery, fixes and the table of audits
	$(ATTACK) --answers whynan-attack/collection.jsonl
	$(BIN)/python -m tests.soundness.adversarial.fixes
	$(ATTACK) --answers whynan-attack/audit.jsonl --audit benchmarks/audit/results.json

clean: ## remove .venv and all caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find src tests -name __pycache__ -prune -exec rm -rf {} +
