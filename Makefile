PYTHON ?= python3
# cpu, or gpu for ONNX Runtime with CUDA
EXTRA ?= cpu
BIN := .venv/bin

.PHONY: serve install test lint format bench demo

serve: .venv/serve.done
	$(BIN)/quietframe serve

install: .venv/all.done

test: .venv/all.done
	$(BIN)/pytest

lint: .venv/all.done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/all.done
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/serve.done
	$(BIN)/quietframe bench

# Draws the picture and the sample of the README anew, with the model in the repository.
demo: .venv/all.done
	$(BIN)/python -m training plot before-after --out docs

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/serve.done: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRA)]'
	touch $@

# torch by its exact version first and alone: anything looser may bring gigabytes of CUDA.
.venv/all.done: pyproject.toml .venv/serve.done
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRA),train,dev]'
	touch $@
