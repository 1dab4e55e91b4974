# make demo   a GAN on real digits, from nothing to a picture
# make quick  the tests that train nothing, in about a minute
# make test   the types and the tests, in about 15 minutes; make test-all has the slow ones too
# make lint   ruff; make types: mypy; make format mends what ruff can
# make setup  the environment alone; ACCEL=cpu (default), cuda13 or tpu picks jax's extra, and tests
#             then run on that device
ACCEL ?= cpu
PYTHON ?= python3
WORKDIR ?= runs/demo
BIN := .venv/bin
SETUP := .venv/.ready-$(ACCEL)
# -rs: what is skipped, and why, at the end.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile -rs
EXTRA := $(if $(filter cpu,$(ACCEL)),,[$(ACCEL)])

.PHONY: setup demo quick test test-all lint types format
.DELETE_ON_ERROR:

setup: $(SETUP)

# Made anew when a requirement changes; the marker is written only when everything is installed.
$(SETUP): requirements.txt requirements-dev.txt constraints.txt
	@case "$(ACCEL)" in cpu|cuda13|tpu) ;; *) echo "error: ACCEL=$(ACCEL) must be cpu, cuda13 or tpu" >&2; exit 2;; esac
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "error: Python 3.11 to 3.13 is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "making .venv (about 1.3 GB, a minute or two)…"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -r requirements-dev.txt "jax$(EXTRA)" -c constraints.txt
	@rm -f .venv/.ready-* && touch $@

demo: $(SETUP)
	$(BIN)/python train.py --config=configs/gan.py --workdir=$(WORKDIR)
	$(BIN)/python sample.py --workdir=$(WORKDIR) --num=100 --out=$(WORKDIR)/digits.png
	@echo
	@echo "The digits are in $(WORKDIR)/digits.png. Next:"
	@echo "  . .venv/bin/activate"
	@echo "  python train.py --config=configs/dcgan.py       # convolutions, sharper digits"
	@echo "  python sample.py --workdir=$(WORKDIR) --num=64 --seed=3 --out=more.png"

# Compiled programs are kept, so that the next time is shorter.
quick: export ATELIER_TESTS_COMPILED ?= $(CURDIR)/.pytest_cache/compiled
quick: $(SETUP)
	$(PYTEST) -m "not training and not slow"

test: $(SETUP) types
	$(PYTEST) -m "not slow"

test-all: $(SETUP) types
	$(PYTEST)

types: $(SETUP)
	$(BIN)/mypy

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(SETUP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
