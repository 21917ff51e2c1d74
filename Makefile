# Everything from nothing: Python 3.11 or newer, make and git are all that has to be there.
# pip goes by your own configuration and environment: indexes, certificates, proxies.

VENV := .venv
PY := $(VENV)/bin/python
# The oldest that will do comes first, so that everybody runs the same one.
PYTHONS ?= python3.11 python3.12 python3.13 python3

# A virtual environment that is usable is used, whoever made it. One that was moved, lost its Python, or was
# left in the middle of an installation is made anew. (`venv` writes bin/activate last, with its own path.)
STALE := $(shell test ! -e $(VENV)/installing && grep -qF '$(CURDIR)/$(VENV)' $(VENV)/bin/activate 2>/dev/null \
	&& $(PY) -c 'import pip' 2>/dev/null || echo always)

.PHONY: help run test bench docs up down clean always
.NOTPARALLEL:

help:
	@echo 'make run      run the example pipeline, customer_etl, on a demo database'
	@echo 'make test     ruff, mypy, import contracts and all tests'
	@echo 'make bench    what a run costs, beside peers and limits measured in the same run'
	@echo 'make docs     the pages of docs/reference, from the code'
	@echo 'make up       a local Prefect server with its UI, in the background'
	@echo 'make down     stop the servers that make started'
	@echo 'make clean    remove all that make made: servers, demo databases, $(VENV), caches'

run: $(VENV)/run
	@$(PY) -m flows.customer_etl </dev/null

test: $(VENV)/test
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(PY) -m pytest -n logical --maxprocesses 4 --dist loadfile </dev/null

bench: $(VENV)/run
	@$(PY) -m benchmarks </dev/null

docs: $(VENV)/run
	@$(PY) -m docs

up: $(VENV)/run
	@$(PY) -m flows._server up </dev/null

down: $(VENV)/run
	@$(PY) -m flows._server down
	@$(PY) -m flows._embedded stop

clean:
	@if [ -e $(VENV)/run ]; then $(PY) -m flows._server down && $(PY) -m flows._embedded remove; fi
	rm -rf $(VENV) *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +

# $(call install,EXTRAS): compiled at once, because the first import would take seconds otherwise.
define install
	@echo 'Installing lockgate[$(1)] into $(VENV) ...'
	@touch $(VENV)/installing
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(1)]' </dev/null
	@$(PY) -m compileall -qq $(VENV)/lib flows transforms validations || true
	@rm $(VENV)/installing
	@touch $@
endef

$(VENV)/test: $(VENV)/run
	$(call install,demo$(,)dev)

$(VENV)/run: $(VENV)/bin/activate pyproject.toml constraints.txt
	$(call install,demo)

$(VENV)/bin/activate: $(STALE)
	@for python in $(PYTHONS); do \
		$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
		python=; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'Lockgate needs Python 3.11 or newer with its venv module, and found none as: $(PYTHONS).' >&2; exit 1; \
	fi; \
	if [ -e $(VENV) ] && [ ! -O $(VENV) ]; then echo '$(VENV) belongs to another user; remove it first.' >&2; exit 1; fi; \
	echo "Setting up $(VENV) with $$($$python --version): a few minutes the first time ..."; \
	rm -rf $(VENV) && $$python -m venv $(VENV) </dev/null

, := ,
