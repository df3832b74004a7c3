# make demo   sets everything up, then pretrains on the built-in text: about two minutes
# make study  four objectives x two seeds on the built-in text, with a report: about ten minutes on two cores
# make test   sets everything up, then runs every test (the slow ones too: processes, kills)
# make fast   the tests that take at most three minutes together
# make long   the longest ones, half an hour: 200 steps of every objective, every benchmark
# make check  formatting, lint and types

PYTHON ?= python3
BIN := .venv/bin/python
STAMP := .venv/.installed
export TOKENIZERS_PARALLELISM ?= false
FEW_THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1# a process of tests for each core

.PHONY: demo study test fast long check setup clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; give make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN) pretrain.py --config demo.yaml --out runs/demo-$$(date +%Y%m%d-%H%M%S)

study: $(STAMP)
	$(BIN) ablate.py docs/studies/demo.yaml

fast: $(STAMP)
	$(FEW_THREADS) $(BIN) -m pytest -m 'not slow and not long' --numprocesses auto

test: fast
	$(BIN) -m pytest -m slow

long: $(STAMP)
	$(FEW_THREADS) $(BIN) -m pytest -m long --numprocesses auto

check: $(STAMP)
	$(BIN) -m ruff format --check .
	$(BIN) -m ruff check .
	$(BIN) -m mypy

clean:
	rm -rf .venv build *.egg-info
