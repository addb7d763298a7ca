PYTHON ?= python3
# cpu; or gpu for ONNX Runtime with CUDA, or openvino for bf16 on CPUs
EXTRA ?= cpu
BIN := .venv/bin

.PHONY: serve install test soak lint format bench loadtest loadtest-peers demo image lock

serve: .venv/serve-$(EXTRA).done
	$(BIN)/quietframe serve

install: .venv/all-$(EXTRA).done

# Two files at a time, in order; then what measures a peak, and wants the machine for itself.
test: .venv/all-$(EXTRA).done
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --ignore tests/service/test_load.py
	$(BIN)/pytest tests/service/test_load.py

# The promises under load at full length; a quiet machine, please.
SOAK := $(patsubst %,tests/service/test_%.py,load fuzz promises archive_losses) tests/contract/test_image.py
soak: .venv/all-$(EXTRA).done
	$(BIN)/pytest --soak -rA $(SOAK)

lint: .venv/all-$(EXTRA).done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/all-$(EXTRA).done
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/serve-$(EXTRA).done
	$(BIN)/quietframe bench

# LOADTEST="--full", "--vs HEAD~1", "--vs-setting LANES=1" and more: deploy/loadtest/README.md
loadtest: .venv/all-$(EXTRA).done
	$(BIN)/python -m deploy.loadtest $(LOADTEST)

loadtest-peers: .venv/all-$(EXTRA).done .venv/peers/starlette.done .venv/peers/mlserver.done
	$(BIN)/python -m deploy.loadtest.peers $(LOADTEST)

.venv/peers/%.done: deploy/loadtest/peers/%/requirements.txt | .venv/bin/python
	$(PYTHON) -m venv .venv/peers/$*
	.venv/peers/$*/bin/python -m pip install --quiet --requirement $<
	touch $@

# Draws the picture and the sample of the README anew, with the model in the repository.
demo: .venv/all-$(EXTRA).done
	$(BIN)/python -m training plot before-after --out docs

# deploy/README.md tells the rest; EXTRA=gpu for the other image, BASE=... for another base.
image:
	deploy/image.sh $(EXTRA) $(if $(BASE),--build-arg BASE=$(BASE))

# What images install: the newest that pyproject.toml allows, with hashes, for every Python and platform.
LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-annotate --custom-compile-command "make lock"
lock: .venv/bin/python
	$(BIN)/python -m pip install --quiet uv
	$(LOCK) --extra cpu --extra otel --output-file deploy/requirements/cpu.txt pyproject.toml
	$(LOCK) --extra gpu --extra otel --output-file deploy/requirements/gpu.txt pyproject.toml
	sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml | $(LOCK) --output-file deploy/requirements/build.txt -

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/serve-$(EXTRA).done: pyproject.toml | .venv/bin/python
	rm -f .venv/*.done
	$(BIN)/python -m pip uninstall --quiet --yes onnxruntime onnxruntime-gpu onnxruntime-openvino # they share one folder
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRA)]'
	touch $@

# torch by its exact version first and alone: anything looser may bring gigabytes of CUDA.
.venv/all-$(EXTRA).done: pyproject.toml .venv/serve-$(EXTRA).done
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRA),train,dev]'
	touch $@
