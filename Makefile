PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
GPU_VENV ?= .venv-gpu
GPU_PROGRAM := $(GPU_VENV)/bin/python -m benchmarks.gpu_program --quick

.PHONY: install install-dev bindings resolve quickstart check test test-fast prove bench gpu gpu-check gpu-program format

# What trains, evaluates and exports: enough for everything in the README but its last section.
install: $(VENV)/installed

# What the checks and the tests need as well.
install-dev: $(VENV)/installed-dev

# Debian's python3 may lack ensurepip; then virtualenv from pip or the package python3-venv is needed.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --upgrade pip

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV): some minutes without output"
	$(VENV)/bin/pip install --quiet -e ".[export]"
	touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV), with what the tests need: some minutes without output"
	$(VENV)/bin/pip install --quiet -e ".[test]"
	$(MAKE) --no-print-directory bindings
	touch $(VENV)/installed $@

# TensorRT's Python bindings, without their libraries, of two versions that no one environment holds: a test reads from
# them which calls exist, and is skipped where there are none for this machine.
bindings:
	-$(VENV)/bin/pip install --quiet --no-deps --upgrade --target $(VENV)/tensorrt_bindings/10 "tensorrt-cu12-bindings>=10,<11"
	-$(VENV)/bin/pip install --quiet --no-deps --upgrade --target $(VENV)/tensorrt_bindings/11 "tensorrt-cu13-bindings>=11,<12"

# Whether every extra can be installed from wheels on each Python, which need not be here.
resolve: install-dev
	$(RUN) .ci/resolve.py

quickstart: install
	$(RUN) cli.py quickstart

format: install-dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

check: install-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# Three tiers: docs/testing.md.
test: install-dev
	$(VENV)/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: install-dev
	$(VENV)/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder --tier=fast

prove: install-dev
	$(VENV)/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder --tier=prove

# On a machine with a GPU, in an environment that is there (PYTHON=): docs/gpu.md.
gpu-check:
	$(PYTHON) -m benchmarks.on_gpu --check

gpu:
	$(PYTHON) -m benchmarks.on_gpu

# On a quiet machine: benchmarks.report refuses results that others disturbed.
bench: install-dev
	$(RUN) -m benchmarks.inference --backbone swin_t --size 512
	$(RUN) -m benchmarks.inference --backbone swin_l --size 640
	$(RUN) -m benchmarks.training --backbone swin_t --size 512 --batch 1
	$(RUN) -m benchmarks.training --backbone swin_t --size 512 --batch 2 --apart
	$(RUN) -m benchmarks.deformable_attention --size 512
	$(RUN) -m benchmarks.pipeline --recipe tao
	$(RUN) -m benchmarks.pipeline --recipe plain
	$(RUN) -m benchmarks.report

# JAX's plugin for CUDA with NVIDIA's libraries, 4 GB: no GPU and no driver is needed to compile for one.
# Another environment, GPU_VENV=, is taken as it is.
.venv-gpu/installed: pyproject.toml
	@echo "installing into .venv-gpu: some minutes without output"
	$(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/pip install --quiet --upgrade pip
	.venv-gpu/bin/pip install --quiet -e ".[cuda]"
	touch $@

# An hour on two cores: what an H100 would run, and how long that takes at least. Then `make bench`'s last line.
gpu-program: $(filter .venv-gpu/installed,$(GPU_VENV)/installed)
	$(GPU_PROGRAM) --backbone swin_t --size 512 --precision bf16-mixed
	$(GPU_PROGRAM) --backbone swin_t --size 512 --precision 32
	$(GPU_PROGRAM) --backbone swin_l --size 1024 --precision bf16-mixed
	$(GPU_PROGRAM) --backbone swin_l --size 1024 --precision 32
	$(GPU_PROGRAM) --backbone swin_t --size 512 --batch 1 --inference semantic
	$(GPU_PROGRAM) --backbone swin_l --size 1024 --batch 1 --inference semantic
	$(GPU_PROGRAM) --backbone swin_l --size 1024 --precision bf16-mixed --devices 8 --strategy ddp
	$(GPU_PROGRAM) --backbone swin_l --size 1024 --precision bf16-mixed --devices 8 --strategy fsdp
