# Everything a newcomer needs: `make run` tries the service, `make test` proves it.

# The system's own where it can be used: Debian's packages run on it, and it was built to be fast. Else the first one found.
PYTHON ?= $(shell /usr/bin/python3 -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
            2>/dev/null && echo /usr/bin/python3 || echo python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The tests start hundreds of processes, which find their modules compiled, also where Python is told not to keep that.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest
# Most of them wait most of the time. Those of one file share services, so they stay together, the long ones first.
WORKERS := 6
PARALLEL = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder tests/integration tests/unit
# Each fact once.
FAST   := not slow and not full
COMPILE := $(BIN)/pip-compile --quiet --strip-extras --generate-hashes --allow-unsafe --no-emit-options

SCRIPTS := .ci/run $(filter-out %.py %.8 %/debian %/prometheus %/grafana %/completions,$(wildcard packaging/*)) packaging/debian/postinst packaging/debian/postrm \
           packaging/debian/prerm $(wildcard scripts/*)

# Half of them keep the processors busy, the others wait for a machine or a disk: so they go side by side, and the linters too.
# All are run before any fails, and each says at its end what it has to say.
#   run MARKS POWER_CUTS
ALL_TESTS := run() { \
    if [ "$$(id -u)" = 0 ]; then scripts/incus-host; fi; \
    echo 'All tests, the style and the types, side by side:'; \
    $(MAKE) --no-print-directory --jobs 3 --keep-going --output-sync=target MARKS="$$1" POWER_CUTS="$$2" \
      test-machine test-processes lint; \
  }; run

SECONDS ?= 600

.DEFAULT_GOAL := help
.PHONY: help run incus test test-machine test-processes test-fast test-full test-pythons test-versions fuzz coverage bench lint docs deb install uninstall venv lock clean

help: ## say what can be made
	@grep -hE '^[a-z][a-z0-9-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

venv: $(STAMP)

$(STAMP): pyproject.toml requirements-build.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Python 3.11, 3.12 or 3.13 is needed; say which: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "venv is missing: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-build.txt -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: $(STAMP) ## set up and start the whole service in the foreground
	@$(BIN)/incus-courier --config config.toml serve

incus: ## give this Debian or Ubuntu machine a real Incus with small containers to try (root)
	@scripts/incus-host

lint: $(STAMP) ## ruff, mypy --strict, shellcheck, and gofmt where it is
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/shellcheck --external-sources --source-path=SCRIPTDIR $(SCRIPTS)
	@if command -v gofmt >/dev/null; then ! gofmt -l bench/peer | grep .; fi

test-fast: $(STAMP) lint ## unit and integration tests in memory, side by side, each fact once, in two minutes
	@$(PYTEST) -m "$(FAST)" --quick $(PARALLEL)

test: $(STAMP) ## one path of everything, against a real Incus (which root gets installed), in under ten minutes
	@$(ALL_TESTS) "not full" 4

test-full: $(STAMP) ## everything, then on every version of Python and Incus that can be had here: an hour
	@[ -x /usr/bin/chromium ] || echo 'The dashboard is not tried: chromium is missing (apt-get install chromium).' >&2
	@command -v promtool >/dev/null || echo 'Metrics are not scraped: prometheus is missing (apt-get install prometheus).' >&2
	@$(ALL_TESTS) "" 40
	@scripts/test-pythons
	@if [ "$$(id -u)" = 0 ]; then scripts/test-versions; fi

# The parts of `test` and `test-full`, with what they choose.
test-machine: $(STAMP)
	@$(PYTEST) -m "$(MARKS)" --power-cuts "$(POWER_CUTS)" tests --ignore tests/integration --ignore tests/unit

# One worker less makes room for the other part.
test-processes: WORKERS := 5
test-processes: $(STAMP)
	@$(PYTEST) -m "$(MARKS)" $(PARALLEL)

test-pythons: ## unit and integration tests on each supported Python that this machine has
	@scripts/test-pythons

test-versions: $(STAMP) ## the live tests against Incus 6.0, Incus 7.0, LXD 5.0 and clusters (root, Debian)
	@scripts/test-versions

fuzz: $(STAMP) ## hostile heads, forms, queries, ranges and resumable uploads, for ten minutes (SECONDS=60)
	@$(PYTEST) -m fuzz --fuzz-seconds $(SECONDS) --timeout 0 tests/fuzz

coverage: $(STAMP) ## how much of the code the unit and integration tests run, in all of their processes
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest --quick $(PARALLEL)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

bench: $(STAMP) ## measure the service beside its peers, one of which needs Go (ARGS=--quick, --full or "--only NAME")
	@$(BIN)/python -m bench $(ARGS)

docs: $(STAMP) ## write api.md, commands.md, errors.md, events.md, metrics.md, recovery.md, the keys of access.md, and the manual page
	@$(BIN)/python -m docs.tables

deb: ## the Debian package for this machine's Python, in dist/
	@PYTHON=$(PYTHON) packaging/deb

install: ## install and start the service on this machine, without a package (root)
	@PYTHON=$(PYTHON) packaging/install

uninstall: ## take it away again; keeps configuration and uploads (root)
	@packaging/uninstall

lock: $(STAMP) ## pin what the direct dependencies bring along, and what builds the package
	$(BIN)/pip install --quiet pip-tools
	$(COMPILE) -o requirements.txt pyproject.toml
	$(COMPILE) --extra dev -o requirements-dev.txt pyproject.toml
	$(COMPILE) --only-build-deps --build-deps-for wheel --build-deps-for editable -o requirements-build.txt pyproject.toml

clean: ## remove what was built, not the state
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
