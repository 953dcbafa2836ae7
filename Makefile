# make demo    installs, trains NCSN on digits, samples, and says where the pictures are
# make test    installs and runs the tests
# make check   what is wrong without running anything: ruff, its formatter, mypy
# make docs    the pages as a site, docs/_build/html/index.html
# make notebooks   executes them in place

PYTHON ?= python3
VENV   ?= .venv
RUN    := $(VENV)/bin/python
WORKDIR ?= runs/ncsn_digits

.PHONY: demo test check docs notebooks clean

demo: $(VENV)/installed
	$(RUN) launch.py --config=configs/ncsn_digits.py --workdir=$(WORKDIR) --config.evaluation.samples=64

test: $(VENV)/installed-test
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(VENV)/installed-test
	$(RUN) -m ruff check --quiet .
	$(RUN) -m ruff format --quiet --check .
	$(RUN) -m mypy

docs: $(VENV)/installed-test
	$(RUN) -m sphinx -q -W --keep-going -b html docs docs/_build/html

notebooks: $(VENV)/installed-test
	$(RUN) -m nbconvert --to notebook --execute --inplace \
	  --ExecutePreprocessor.record_timing=False notebooks/*.ipynb

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "score_jax needs Python 3.11 or newer; found $$($(PYTHON) --version). Try make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 2; }

$(VENV)/installed: setup.py | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/installed-test: setup.py | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/installed
