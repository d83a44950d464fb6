# Each target makes the virtual environment that it needs under .venv/, from the pins in requirements/, and makes it
# anew when those change. Only make, a CPython from 3.11 on and the package registry have to be there; on Windows GNU
# make, and the shell that comes with git.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The interpreter of every environment but those of the core tests, which run on each supported one that is found.
PYTHON ?= $(shell sh tools/find_pythons.sh --default)
PYTHONS := $(shell sh tools/find_pythons.sh | tr ' ' '=')
VERSIONS := $(foreach found,$(PYTHONS),$(firstword $(subst =, ,$(found))))
interpreter = $(patsubst $(1)=%,%,$(filter $(1)=%,$(PYTHONS)))

# Where an environment keeps its programs.
export VENV_BIN := $(if $(filter Windows_NT,$(OS)),Scripts,bin)

# More threads than this only slow small tensors down.
export OMP_NUM_THREADS ?= 1

# What the package is built from, which an editable install has to be told of.
BUILD := pyproject.toml setup.py src/safepickle/__init__.py $(wildcard src/safepickle/_*.[ch])

.PHONY: help demo test test-core test-debian test-integrations test-pure test-torch-latest test-heavy test-all lint fuzz docs bench
.PHONY: coverage dist sanitize clean test-peers figures wheels

help:
	@echo "make demo      train, save, resume in a new process: examples/train_resume.py"
	@echo "make test      the core's tests on CPython $(VERSIONS), then the integrations'"
	@echo "make test-all  make test, and the tests that need TensorFlow, JAX, Ray and Spark"
	@echo "make test-debian        the core's tests on the Pythons of Debian $(DEBIAN), as root"
	@echo "make test-peers  cloudpickle's and dill's own tests, with safepickle in their place"
	@echo "make test-pure          the integrations' tests without the compiled core"
	@echo "make test-torch-latest  the integrations' tests on the newest torch, which takes 5 GB"
	@echo "make lint      ruff format, ruff check, mypy, pyright"
	@echo "make coverage  which branches of src/ the core's tests leave out"
	@echo "make dist      the wheels and the sdist, in dist/, each tried in a fresh environment"
	@echo "make wheels    the wheel of this platform by cibuildwheel, in wheelhouse/"
	@echo "make fuzz      the guard under a coverage-guided fuzzer, for FUZZ_SECONDS ($(FUZZ_SECONDS)); new seeds join the corpus"
	@echo "make sanitize  the compiled core's tests under the address and undefined-behaviour sanitizers"
	@echo "make bench     the benchmarks beside the peers, with the compiled core and without; then make figures"
	@echo "make figures   the tables and the picture of the pages, from the results of the last run"
	@echo "make docs      the documentation site, in site/"
	@echo "make clean     remove environments and caches"

demo: .venv/demo/.ready
	.venv/demo/$(VENV_BIN)/python examples/train_resume.py

test: test-core test-integrations

# The tests of one file stay in one process, and one that crashes or hangs ends the run. Without the compiled core the
# guard is tested on the first CPython alone.
GUARD_PURE ?= tests/guard
PARALLEL = -q -n auto --dist loadfile --max-worker-restart 0

test-core: $(VERSIONS:%=.venv/core-%/.ready)
	@test -n "$(VERSIONS)" || { echo "no CPython from 3.11 to 3.15 was found"; exit 1; }
	@set -e; guard="$(GUARD_PURE)"; for version in $(VERSIONS); do \
	    echo "core tests on CPython $$version: $$(.venv/core-$$version/$(VENV_BIN)/python -V)"; \
	    .venv/core-$$version/$(VENV_BIN)/python -m pytest $(PARALLEL) tests/test_*.py tests/guard; \
	    echo "the same without the compiled core"; \
	    SAFEPICKLE_PURE=1 .venv/core-$$version/$(VENV_BIN)/python -m pytest $(PARALLEL) tests/test_*.py $$guard; \
	    guard=; \
	done
	@echo "the core's tests passed on CPython $(VERSIONS)"

# The Pythons that this machine lacks. Where no root of Debian can be made (69), a line says that they were left out.
DEBIAN ?= sid

test-debian:
	@sh tools/in_debian.sh $(DEBIAN) make test-core GUARD_PURE= || { \
	    status=$$?; test $$status = 69 || exit $$status; \
	    echo "SKIPPED: the core's tests on the Pythons of Debian $(DEBIAN)"; \
	}

test-integrations: .venv/test/.ready
	.venv/test/$(VENV_BIN)/python -m pytest $(PARALLEL) tests/integrations

# The compiled core is on in the target above; those of the core run both ways.
test-pure: .venv/test/.ready
	SAFEPICKLE_PURE=1 .venv/test/$(VENV_BIN)/python -m pytest $(PARALLEL) tests/integrations

test-torch-latest: .venv/torch-latest/.ready
	.venv/torch-latest/$(VENV_BIN)/python -m pytest $(PARALLEL) tests/integrations

ifneq ($(wildcard tests/heavy/test_*.py),)
test-heavy: .venv/heavy/.ready
	.venv/heavy/$(VENV_BIN)/python -m pytest -q tests/heavy
else
test-heavy:
	@echo "there are no heavy tests"
endif

# The tests of cloudpickle and of dill, with safepickle in their place: tests/peers/deviations.toml says what differs.
test-peers: .venv/peers/.ready
	PYTHONPATH=tests .venv/peers/$(VENV_BIN)/python -m peers

test-all: test test-heavy

# Tests of one platform call what the others lack, so all but what users import is checked for Linux alone.
lint: .venv/lint/.ready
	.venv/lint/$(VENV_BIN)/ruff format --check .
	.venv/lint/$(VENV_BIN)/ruff check .
	.venv/lint/$(VENV_BIN)/mypy --platform linux
	set -e; for platform in darwin win32; do .venv/lint/$(VENV_BIN)/mypy --platform $$platform src tests/typing; done
	.venv/lint/$(VENV_BIN)/pyright --project pyproject.toml --pythonpath .venv/lint/$(VENV_BIN)/python

sanitize: .venv/core-$(firstword $(VERSIONS))/.ready
	sh tools/sanitize.sh .venv/core-$(firstword $(VERSIONS))/$(VENV_BIN)/python

coverage: .venv/coverage/.ready
	rm -rf .cache/coverage
	.venv/coverage/$(VENV_BIN)/coverage run -m pytest $(PARALLEL) -o faulthandler_timeout=0 tests/test_*.py tests/guard \
	    --deselect tests/test_durability.py::test_a_full_disk_leaves_the_old_file_and_no_litter  # nor room for coverage's data
	.venv/coverage/$(VENV_BIN)/coverage combine --quiet
	.venv/coverage/$(VENV_BIN)/coverage report

# The tests that the sdist runs of its own: those that read files beside src/ and tests/, and a few that dump and load.
DIST_TESTS ?= $(addprefix tests/test_,$(addsuffix .py,docs package public_api layering peers format recomputed cli policies systems))

# CPython 3.11 builds the binary that serves the later ones, too.
dist .venv/dist/.ready: PYTHON := $(or $(call interpreter,3.11),$(PYTHON))

dist: .venv/dist/.ready
	@sh tools/check_dist.sh .venv/dist/$(VENV_BIN)/python \
	    "$(PYTHON) $(filter-out $(PYTHON),$(foreach found,$(PYTHONS),$(lastword $(subst =, ,$(found)))))" $(DIST_TESTS)

# The wheel of this platform as others can use it, from environments of cibuildwheel's: on Linux it takes docker.
wheels: .venv/wheels/.ready
	.venv/wheels/$(VENV_BIN)/cibuildwheel --output-dir wheelhouse

# Shared among the targets. What is found lies in .cache/fuzz/findings, and makes this fail.
FUZZ_SECONDS ?= 300

fuzz: .venv/fuzz/.ready
	PYTHONPATH=tests .venv/fuzz/$(VENV_BIN)/python -W ignore -m fuzz --seconds $(FUZZ_SECONDS)

docs: .venv/docs/.ready
	.venv/docs/$(VENV_BIN)/mkdocs build --strict --quiet
	@echo "the site is in site/: open site/index.html"

bench: .venv/bench/.ready
	@set -e; for program in benchmarks/bench_*.py; do \
	    echo "== $$program"; .venv/bench/$(VENV_BIN)/python "$$program"; \
	done
	@$(MAKE) figures

# The tables of the pages, and the picture, from the results of the last run.
figures: .venv/bench/.ready
	.venv/bench/$(VENV_BIN)/python benchmarks/tables.py
	.venv/bench/$(VENV_BIN)/python benchmarks/plot.py

clean:
	rm -rf site .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist wheelhouse
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/core-%/.ready: requirements/core.txt $(BUILD) tools/make_venv.sh
	@sh tools/make_venv.sh $(call interpreter,$*) $(@D) $<
	@touch $@

.venv/%/.ready: requirements/%.txt requirements/core.txt $(BUILD) tools/make_venv.sh
	@sh tools/make_venv.sh "$(PYTHON)" $(@D) $<
	@touch $@

.venv/test/.ready .venv/torch-latest/.ready .venv/heavy/.ready: requirements/integrations.txt
.venv/heavy/.ready: requirements/test.txt
