# Two commands do everything on a machine with Python 3.12, make and a compiler:
#   make demo    record, convert, train     make test    install and test
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
comma := ,
EXTRAS := demo,train,bench,s3,ray,view,docs,dev

.PHONY: install demo test faults test-all check format bench bench-full docs screenshots constraints clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null || { \
	  echo "lewm_data needs Python 3.12 or newer, but '$(PYTHON)' is $$($(PYTHON) -V 2>/dev/null || echo absent): install 3.12 and run 'make PYTHON=python3.12 $(MAKECMDGOALS)'." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv -c constraints.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: install
	$(BIN)/lewm-data demo outputs/demo/pusht
	$(BIN)/python train.py --config configs/demo.yaml

# Fast tests side by side, slow ones each alone: some of these measure memory or fill all processors.
test: install
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" -n auto --maxprocesses 4 --dist worksteal

faults: install
	$(BIN)/python -m tests.faults

test-all: test
	$(BIN)/python -m pytest -q -m "slow or hypothesis" --hypothesis-profile explore

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Training comes after throughput, whose loaders it shows.
BENCHMARKS := throughput conversion codecs scaling training inspection

bench: install
	set -e; for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name; done
	$(BIN)/python -m benchmarks.report

bench-full: install
	set -e; for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name --full; done
	$(BIN)/python -m benchmarks.report

# docs/ as a site, in site/index.html.
docs: install
	$(BIN)/python docs/make_troubleshooting.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Pictures of the preview page for the documentation; needs Chromium.
SOURCE ?= outputs/demo/pusht
screenshots: install
	$(BIN)/python docs/screenshots.py $(SOURCE)

# Resolve anew; commit the result.
constraints:
	$(BIN)/uv pip compile --quiet --upgrade --no-annotate --no-header --no-emit-index-url \
	  $(foreach extra,$(subst $(comma), ,$(EXTRAS)),--extra $(extra)) pyproject.toml -o constraints.txt
	$(BIN)/python -m pip freeze --all | grep -E '^uv==' >> constraints.txt

clean:
	rm -rf outputs site .pytest_cache .ruff_cache .mypy_cache .hypothesis
