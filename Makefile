# The same words on every machine and in CI. Every target works twice in a row and from a clean clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test quick soak check fix bench docs clean
help:
	@echo "make demo    set up and run the main job (about 10 minutes on two slow cores), then open runs/demo/report.html"
	@echo "make test    set up and run every test"
	@echo "make quick   tests without a model, a browser or a sandbox: under a minute"
	@echo "make soak    the long form of the kill and fuzz tests (about half an hour)"
	@echo "make check   formatting, lint, types, import layers"
	@echo "make fix     format and mend what can be mended"
	@echo "make bench NAME=probe_fit   one benchmark (SMALL=1 for a quick one)"
	@echo "make docs    refresh the generated pages of docs/"

# A bare Debian has pip but not always ensurepip; virtualenv from a private folder then makes the same .venv.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  $(PYTHON) -m pip install -q --target .make/virtualenv virtualenv && \
	  PYTHONPATH=.make/virtualenv $(PYTHON) -m virtualenv -q $(VENV); }
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'

$(VENV)/.demo: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install -q -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/python -m pip install -q -e '.[all]' --group dev
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/trimtab demo

# A failure is tried once more and counted as "rerun": kills and time limits go by the clock, which a busy machine stretches.
# The report's tests drive Chromium and the sandbox's bubblewrap; where these cannot be installed they are skipped.
test: $(VENV)/.dev
	@command -v chromium >/dev/null && command -v bwrap >/dev/null || { [ "$$(id -u)" = 0 ] && \
	  command -v apt-get >/dev/null && apt-get update -qq && \
	  apt-get install -y -qq --no-install-recommends chromium bubblewrap >/dev/null; } || true
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --reruns 1 $(ARGS)

quick: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not (torch or model or browser or slow or neighbours)" \
	  --ignore tests/unit/sandbox --ignore tests/e2e --ignore tests/docs $(ARGS)

soak: $(VENV)/.dev
	TRIMTAB_SOAK=1 $(BIN)/python -m pytest tests/e2e/test_kills.py tests/unit/test_shards.py tests/unit/test_fitted.py tests/unit/lm/test_untrusted.py tests/unit/test_damaged_files.py

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

fix: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks $(NAME) $(if $(SMALL),--small) $(ARGS)

docs: $(VENV)/.dev
	$(BIN)/python docs/refresh.py

clean:
	rm -rf $(VENV) .make .pytest_cache .ruff_cache
