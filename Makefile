# Everything a person or a machine types. Python 3.11 or newer, git and make are all that has to be there before.

PYTHON ?= python3
# One exact build, so that every machine tests the same one. For another build, as for a GPU: make TORCH="torch==2.13.0+cu130" demo
TORCH ?= torch==2.13.0
# Versions of CVXPY for `make matrix`: the oldest supported, one between, and the newest.
CVXPY ?= 1.9.0 1.9.2 newest
# What `make bench` measures: everything, or one workload, or one batch size of it; see benchmarks/README.md.
WORKLOAD ?=
BATCH ?=
# Test processes. Each works on one item at a time: threads of linear algebra would only compete.
WORKERS ?= 2

PIP = -m pip --disable-pip-version-check install --quiet
QUIET_THREADS = OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
MATRIX = $(addprefix matrix-,$(CVXPY))
MATRIX_TESTS = tests/test_canonical.py tests/test_gradients.py

.PHONY: help demo test check format bench docs matrix $(MATRIX) clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## +/\t/' | expand -t 10

demo: .venv/demo.stamp  ## tune an elastic net through a layer, on real data
	.venv/bin/python -m examples.elastic_net $(ARGS)

test: check  ## check, then run the full suite with all three frameworks
	$(QUIET_THREADS) TF_CPP_MIN_LOG_LEVEL=3 .venv/bin/python -m pytest -n $(WORKERS) $(ARGS)

check: .venv/test.stamp  ## formatting, lint and types
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/pyright --pythonpath .venv/bin/python

format: .venv/test.stamp  ## format, and repair what the linter can
	.venv/bin/ruff format
	.venv/bin/ruff check --fix

bench: .venv-bench/stamp  ## race this library against its peers, side by side
	OMP_WAIT_POLICY=PASSIVE .venv-bench/bin/python -m benchmarks $(addprefix --workload=,$(WORKLOAD)) $(addprefix --batch=,$(BATCH)) $(ARGS)

docs: .venv-docs/stamp  ## build the site in docs/_build/html; warnings are errors
	$(QUIET_THREADS) TF_CPP_MIN_LOG_LEVEL=3 .venv-docs/bin/python -m sphinx -W --keep-going -b html -d docs/_build/doctrees docs docs/_build/html

matrix: $(MATRIX)  ## run the catalogue with the oldest, a middle and the newest CVXPY

$(MATRIX): matrix-%: .venv-cvxpy-%/stamp
	$(QUIET_THREADS) .venv-cvxpy-$*/bin/python -m pytest -n $(WORKERS) $(MATRIX_TESTS)

clean:  ## remove environments, caches and outputs
	rm -rf .venv .venv-* outputs benchmarks/results docs/_build build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is as new as the environment beside it, which is made again where pyproject.toml is newer.

%/bin/python:
	$(PYTHON) -m venv --clear $*
	$*/bin/python $(PIP) "pip>=25.1"  # the first with dependency groups

.PRECIOUS: %/bin/python .venv-cvxpy-%/stamp

.venv/demo.stamp: pyproject.toml | .venv/bin/python
	.venv/bin/python $(PIP) "$(TORCH)" -e ".[examples]"
	touch $@

.venv/test.stamp: pyproject.toml | .venv/bin/python
	.venv/bin/python $(PIP) "$(TORCH)" -e ".[torch,jax,tensorflow,examples]" --group dev
	touch $@ .venv/demo.stamp

# The peers at the versions that the comparison is about. One that cannot be installed is left out.
PEERS = cvxpylayers==1.2.0 moreau==0.4.1 diffcp==1.1.9 proxsuite==0.8.0 qpax==0.1.4 jaxopt==0.8.5
# What these two ask for is installed already, under newer names, and they are built with what is there.
PEERS_ALONE = qpth==0.0.18 mpc==0.0.6

.venv-bench/stamp: pyproject.toml | .venv-bench/bin/python
	.venv-bench/bin/python $(PIP) "$(TORCH)" -e . --group benchmark
	for peer in $(PEERS); do .venv-bench/bin/python $(PIP) $$peer || echo "$$peer cannot be installed: left out"; done
	for peer in $(PEERS_ALONE); do \
		.venv-bench/bin/python $(PIP) --no-build-isolation --no-deps $$peer || echo "$$peer cannot be installed: left out"; \
	done
	touch $@

# The site imports all frameworks, whose reference it shows, and runs the tutorials.
.venv-docs/stamp: pyproject.toml | .venv-docs/bin/python
	.venv-docs/bin/python $(PIP) "$(TORCH)" -e ".[torch,jax,tensorflow,plot]" --group docs
	touch $@

# With the oldest CVXPY go the oldest numpy and scipy that pyproject.toml admits.
OLDEST_1.9.0 = "numpy==2.0.*" "scipy==1.14.*"

.venv-cvxpy-%/stamp: pyproject.toml | .venv-cvxpy-%/bin/python
	.venv-cvxpy-$*/bin/python $(PIP) "$(TORCH)" -e . --group test $(if $(filter newest,$*),--upgrade cvxpy,cvxpy==$*) $(OLDEST_$*)
	touch $@
