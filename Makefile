# `make demo` and `make test` need nothing but Python 3.11+; everything they install stays in .venv.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
INSTALL := $(or $(PYTHON),python3) tools/install.py
RUN := .venv/bin/python -m
# Where it is set, as in many containers, every process compiles the thousand files of torch to bytecode anew.
unexport PYTHONDONTWRITEBYTECODE
# Every test process keeps to one thread, so that as many run side by side as there are cores.
TEST := OMP_NUM_THREADS=1 $(RUN) pytest -n logical --maxprocesses 8 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-all book check lint types imports format clean environment course gpu wheels

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: ## from street images to a finetuned, evaluated model and its report
	@$(INSTALL) --extras demo
	@$(RUN) vistalib demo

test: environment ## the fast tests
	$(TEST) -m "not slow"

test-slow: environment ## the slow tests
	$(TEST) -m slow

test-all: test test-slow ## every test

book: course ## the course as a website
	.venv/bin/python book/build.py

gpu: ## on a machine with an NVIDIA GPU: build, test, measure and train there, by the Python that has torch for it
	$(or $(PYTHON),python3) tools/gpu.py all --out build/gpu
	$(or $(PYTHON),python3) tools/gpu.py collect --out build/gpu

wheels: environment ## vistalib-kernels as a pure wheel, and as one with the library for this torch's CUDA inside
	.venv/bin/python tools/wheels.py --out dist

check: lint types imports ## style, types, and who may import whom; what pre-commit runs too

lint: environment
	$(RUN) ruff check .
	$(RUN) ruff format --check --output-format concise .

types: environment
	$(RUN) mypy

imports: environment
	.venv/bin/lint-imports

format: environment ## put the sources in order
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

clean: ## remove what builds and tests left; data, runs and .venv stay
	rm -rf build dist kernels/build kernels/dist _build book/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	rm -rf *.egg-info kernels/*.egg-info
	find vistalib kernels tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

environment course:
	@$(INSTALL) --extras dev
