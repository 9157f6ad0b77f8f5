# Each target works on a fresh clone: what it needs is made first.
PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
UV := uv==0.13.9
# Without a SECRET_KEY of its own this is somebody's own machine.
DEV := $(if $(SECRET_KEY),,DEBUG=$${DEBUG:-1})

.PHONY: run serve worker beat test lint fmt schema messages bench screens lock
run: $(VENV)/.run .stefna/secret
	@$(DEV) $(BIN)/python manage.py prepare
	@echo "Stefna is at http://127.0.0.1:$(PORT)"
	@$(DEV) exec $(BIN)/python manage.py runserver 127.0.0.1:$(PORT)

# Production shape: SECRET_KEY and what else .env.example names come from the environment or from .env.
serve: $(VENV)/.run
	@$(BIN)/python manage.py prepare
	@exec $(BIN)/gunicorn stefna.wsgi

worker: $(VENV)/.run
	@$(BIN)/python manage.py compilemessages
	@exec $(BIN)/celery -A stefna worker --pool threads --concurrency $${WORKER_THREADS:-64} --loglevel WARNING --without-gossip --without-mingle

beat: $(VENV)/.run
	@exec $(BIN)/celery -A stefna beat --loglevel WARNING

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files -z 'templates/*.html' | xargs -0 $(BIN)/djade --check --target-version 5.2
	SECRET_KEY=lint $(BIN)/mypy .
	SECRET_KEY=lint DEBUG=1 $(BIN)/python manage.py check --fail-level WARNING
	SECRET_KEY=lint DEBUG=1 $(BIN)/python manage.py makemigrations --check --dry-run

# The API's description, from the code; a test holds the two together.
schema: $(VENV)/.dev
	SECRET_KEY=schema DEBUG=1 $(BIN)/python manage.py spectacular --validate --fail-on-warn --file docs/openapi.yaml

# The sentences to translate, from the code; a test finds those that no language may lack.
messages: $(VENV)/.dev
	SECRET_KEY=messages DEBUG=1 $(BIN)/python manage.py makemessages

# The pictures of the pages in docs/screens.
screens: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n 2 stefna/tests/screens.py

bench: $(VENV)/.dev
	SECRET_KEY=bench $(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.numbers
	$(BIN)/python -m benchmarks.production overhead in_flight
	$(BIN)/python -m benchmarks.installation throughput submit slow

fmt: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	git ls-files -z 'templates/*.html' | xargs -0 $(BIN)/djade --target-version 5.2

lock: $(VENV)/.dev
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header -q requirements.in -o requirements.txt
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header -q requirements-dev.in -c requirements.txt -o requirements-dev.txt

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Stefna needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check $(UV)

$(VENV)/.run: requirements.txt | $(BIN)/uv
	$(BIN)/uv pip install -q --system-certs --python $(VENV) --require-hashes -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run | $(BIN)/uv
	$(BIN)/uv pip install -q --system-certs --python $(VENV) --require-hashes -r requirements-dev.txt
	@touch $@

.stefna/secret:
	@mkdir -p .stefna && umask 077 && $(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(50))' > $@
