# `make lessons` and `make test` set up everything; `make help` lists the rest. Systems without make: see README.md.

PYTHON ?= python3
# Options of jupyter lab: make lab LAB_OPTIONS=--no-browser
LAB_OPTIONS ?=
# Processes of pytest. Each has one thread, so that on two cores two of them are quickest.
PROCESSES ?= 2
VENV := .venv
ifeq ($(OS),Windows_NT)
VENV_PYTHON := $(VENV)/Scripts/python.exe
else
VENV_PYTHON := $(VENV)/bin/python
endif
INSTALLED := $(VENV)/.installed
MADE_FROM := constraints.txt settings.ini setup.py pyproject.toml
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUTF8 := 1
# For what trains: with PASSIVE, PyTorch's threads don't waste the cores of a busy machine; a training can be ten times faster.
TRAINING := OMP_WAIT_POLICY=PASSIVE PYTHONWARNINGS=ignore::FutureWarning:torch.jit._script

.DEFAULT_GOAL := help
.PHONY: help lessons test test-browser test-peers test-processors test-gpu lab site bench refresh constraints package clean environment install

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

lessons: environment ## run every lesson, write pages into _lessons/
	@$(VENV_PYTHON) tools/notebooks.py lessons

test: environment ## check everything: style, notebooks, tests
	@$(VENV_PYTHON) -m ruff check
	@$(VENV_PYTHON) tools/notebooks.py check
	@$(TRAINING) $(VENV_PYTHON) -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

test-browser: environment ## open every lesson in JupyterLab in a browser
	@$(VENV_PYTHON) -c "import playwright" 2>/dev/null || $(VENV_PYTHON) -m pip install -c constraints.txt -e ".[browser]"
	@$(TRAINING) $(VENV_PYTHON) -m pytest tests/browser

test-peers: environment ## compare with libraries that fit no other environment
	@$(VENV_PYTHON) -m pip install -q --no-deps -r tests/parity/peers.txt
	@$(TRAINING) $(VENV_PYTHON) -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder tests/parity

test-processors: environment ## run what computes as on older processors
	@$(VENV_PYTHON) tools/processors.py

test-gpu: environment ## on a GPU: what it must not change
	@LESSONKIT_TEST_GPU=1 $(TRAINING) $(VENV_PYTHON) -m pytest -m device

lab: environment ## open the front page in JupyterLab
	@$(TRAINING) $(VENV_PYTHON) -m jupyterlab --LabApp.default_url=/lab/tree/nbs/index.ipynb $(LAB_OPTIONS)

site: environment ## make the web site, lessons and reference, in _site/
	@$(VENV_PYTHON) -c "import furo, myst_nb" 2>/dev/null || $(VENV_PYTHON) -m pip install -c constraints.txt -e ".[site]"
	@$(TRAINING) $(VENV_PYTHON) tools/website.py

bench: environment ## compare with other libraries: benchmarks/results.md
	@$(VENV_PYTHON) -W ignore benchmarks/run.py --out benchmarks/results.md

refresh: environment ## after editing notebooks: export, run and clean them
	@$(VENV_PYTHON) tools/notebooks.py refresh

constraints: ## after a change of requirements: uv.lock (needs uv)
	@uv lock
	@$(PYTHON) tools/constraints.py

package: environment ## build what is published, in dist/, and check it
	@$(VENV_PYTHON) -c "import build, twine" 2>/dev/null || $(VENV_PYTHON) -m pip install -c constraints.txt -e ".[release]"
	@rm -rf dist
	@$(VENV_PYTHON) -m build
	@$(VENV_PYTHON) -m twine check --strict dist/*

clean: ## remove what these commands made, but for .venv
	rm -rf _lessons _browser _site _proc _docs build dist *.egg-info .pytest_cache .hypothesis .cache
	find . -path ./$(VENV) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -print | xargs rm -rf

# The environment. It is made once, and again only when what one of these files says has changed.
environment:
	@cat $(MADE_FROM) | cmp -s - $(INSTALLED) || $(MAKE) --no-print-directory install

install:
	@$(PYTHON) -c "$(NEW_ENOUGH)" 2>/dev/null || { \
	    echo "lessonkit needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1). For example: make lessons PYTHON=python3.12"; exit 1; }
	@$(VENV_PYTHON) -c "$(NEW_ENOUGH)" 2>/dev/null || $(PYTHON) -m venv --clear $(VENV) || { \
	    echo "$(PYTHON) can't make a virtual environment: see above. On Debian and Ubuntu: apt install python3-venv"; \
	    rm -rf $(VENV); exit 1; }
	@echo "Installing PyTorch, fastai, JupyterLab and what else is needed into $(VENV): once, 5 to 15 minutes, up to 10 GB."
	@$(VENV_PYTHON) tools/install.py
	@cat $(MADE_FROM) > $(INSTALLED)
