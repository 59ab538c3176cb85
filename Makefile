# Each of demo, test, test-all, torture, lint, docs and bench does all the set-up it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
PACKAGES := nucseg cache pipeline tests

PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-all torture lint docs bench setup clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,onnx]'
	touch $@

demo: $(READY)
	$(BIN)/nucseg demo --out demo

# without the slowest tests, which test-all runs too
test: $(READY)
	$(PYTEST) -m 'not (torture or cluster or browser or docs_run or processes or installation)'

test-all: $(READY)
	$(PYTEST)

torture: $(READY)
	$(PYTEST) tests/torture --timeout 0 --torture long --torture-table docs/pages/reliability.md

lint: $(READY)
	$(BIN)/ruff check $(PACKAGES)
	$(BIN)/ruff format --check $(PACKAGES)
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/mkdocs.yml
	@echo "open docs/site/index.html"

bench: $(READY)
	for bench in tests/bench/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

clean:
	rm -rf $(VENV) demo docs/site
