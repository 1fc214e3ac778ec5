# One place for every command. `make` alone lists them.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# Containers often set this; it makes every start of Django compile a thousand files anew, which takes a third of its time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
CHECKS := lint formatting types contracts migrations deployment code-blocks
.PHONY: help run test test-rabbitmq test-all check $(CHECKS) bench docs format clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.demo  ## serve the example project and its worker on SQLite (PORT=8000)
	@exec $(BIN)/python manage.py serve

test: $(VENV)/.dev  ## run every test: on SQLite, then on PostgreSQL, with Redis (ARGS=… for pytest)
	@$(BIN)/python -m tests.servers -- $(BIN)/python -m tests.passes $(ARGS)

test-rabbitmq: $(VENV)/.dev  ## run the tests of the Celery engine on RabbitMQ, which has to be installed
	@TESTS_BROKER=rabbitmq $(BIN)/python -m tests.servers -- $(BIN)/python -m pytest -q tests/contrib/celery/test_engine.py tests/contrib/celery/test_pools.py $(ARGS)

test-all: $(VENV)/.dev  ## run every test on each supported Python and Django, and on the lowest dependencies
	@$(BIN)/python -m nox --non-interactive

check: $(VENV)/.dev  ## lint, types, import contracts, migrations, deployment checks, code blocks of the docs
	@$(MAKE) --no-print-directory --keep-going --jobs 2 $(CHECKS)

lint:
	$(BIN)/ruff check .

formatting:
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

contracts:
	$(BIN)/lint-imports

migrations: export DATABASE_URL = sqlite://:memory:
migrations:
	$(BIN)/python manage.py makemigrations --check --dry-run

deployment: export SVC_ENVIRONMENT = production
deployment: export SECRET_KEY = $(shell $(PYTHON) -c 'import secrets; print(secrets.token_urlsafe(64))')
deployment: export ALLOWED_HOSTS = shop.example
deployment: export DATABASE_URL = postgres://shop@db.example/shop
deployment: export REDIS_URL = redis://cache.example/0
deployment: export METRICS_TOKEN = seen-by-nobody
deployment: export PAYMENTS_WEBHOOK_SECRET = seen-by-nobody
deployment:
	@echo manage.py check --deploy
	@$(BIN)/python manage.py check --deploy --fail-level WARNING

code-blocks:
	$(BIN)/python -m pytest -q -p no:cacheprovider README.md docs

bench: $(VENV)/.dev  ## measure against peers (NAME=requests; all without a name)
	@TESTS_DURABLE=1 $(BIN)/python -m tests.servers -- $(BIN)/python -m benchmarks $(NAME)

docs: $(VENV)/.dev  ## build the documentation into build/docs
	@$(BIN)/python -m docs.generate
	@$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs build/docs
	@echo "build/docs/index.html"

format: $(VENV)/.dev  ## sort imports and format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove what the commands made, data of the example project included
	rm -rf $(VENV) .venvs .nox build dist var .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; v = "%d.%d" % sys.version_info[:2]; \
	  sys.version_info >= (3, 11) or sys.exit("This needs Python 3.11 or newer; $(PYTHON) is " + v + ". Try: make PYTHON=python3.13 ...")'
	@$(PYTHON) -m venv $(VENV) || { echo "Python cannot make a virtual environment. On Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv || { echo "pip could not install uv; pip itself will be used."; }

# uv is many times faster; pip is there when a machine's own package index is known to pip only.
define install
	@echo "Installing $(1) into $(VENV) ..."
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[$(1)]' \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(1)]'
	@touch $@
endef

$(VENV)/.demo: pyproject.toml | $(BIN)/uv
	$(call install,demo)

$(VENV)/.dev: pyproject.toml | $(BIN)/uv
	$(call install,$(strip check,demo,docs,otel,servers,test))
	@touch $(VENV)/.demo
