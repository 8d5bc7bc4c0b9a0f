# make demo: the main job, end to end. make test: the test suite. Both make .venv first. See README.md.
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet

.PHONY: help demo test slow interop lint pythons clean

help:
	@echo "make demo     install into $(VENV) and run the main job: train, export, load back"
	@echo "make test     install into $(VENV) with the test extra and run pytest"
	@echo "make slow     the long tests"
	@echo "make interop  outputs against torch's networks, in $(VENV)-torch (Python 3.11)"
	@echo "make lint     ruff"
	@echo "make pythons  smoke tests on every Python from 3.8 to 3.13 on this machine"
	@echo "make clean    remove $(VENV) and build products"

# PYTHON=/path/to/python3 chooses one; otherwise the newest suitable one is taken.
$(PY):
	@found="$(PYTHON)"; [ -n "$$found" ] || { line=$$(sh tools/find_python.sh) || exit 1; found=$${line#* }; }; \
	echo "using $$found ($$($$found --version)) for $(VENV)"; \
	"$$found" -m venv $(VENV)

$(VENV)/.installed-%: setup.py constraints.txt $(PY)
	@echo "installing gluonzoo[$*] into $(VENV)"
	@$(PIP) install --upgrade pip
	@$(PIP) install --no-warn-conflicts -c constraints.txt -e '.[$*]'
	@# On 3.13 MXNet's metadata refuses NumPy 2, so it comes without its dependencies; gluonzoo's setup.py names them.
	@if $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 13))'; then $(PIP) install --no-deps mxnet==1.9.1; fi
	@touch $@

demo: $(VENV)/.installed-demo
	@$(PY) tools/demo.py

# Two processes, a file at a time: what most tests do leaves one of two processors idle.
test: $(VENV)/.installed-test
	@$(PY) -m pytest -n 2 --dist loadfile

slow: $(VENV)/.installed-test
	@$(PY) -m pytest -m slow

# torch, torchvision and timm beside MXNet; a Python of its own, so that nothing else meets torch.
$(VENV)-torch/.installed: setup.py constraints.txt
	@$${PYTHON:-python3.11} -m venv $(VENV)-torch
	@$(VENV)-torch/bin/python -m pip install --quiet --no-warn-conflicts -c constraints.txt -e '.[test,torch]' pyyaml huggingface_hub
	@$(VENV)-torch/bin/python -m pip install --quiet --no-deps torchvision timm
	@touch $@

interop: $(VENV)-torch/.installed
	@$(VENV)-torch/bin/python -m pytest tests/interop -m "slow or not slow"

lint: $(VENV)/.installed-test
	@$(PIP) install ruff
	@$(PY) -m ruff check .

pythons:
	@sh tools/try_pythons.sh

clean:
	rm -rf $(VENV) $(VENV)-torch .venv-3.* build *.egg-info
