# Two commands on a fresh machine with Python 3.11, pip and apt: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
SHARED ?= ../shared

.PHONY: demo docs picture test quick slow-tests lint types unit shared-tests bench cluster chaos chaos-s3 clean

.venv/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

demo: .venv/.installed  ## the whole story on real pictures, about three minutes
	$(BIN)/asif-lance demo

docs: .venv/.installed  ## the documentation as a site, in site/; `make test` builds it too
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

picture: demo  ## the picture of README and the landing page, anew from the demo
	$(BIN)/asif-lance --db asif-demo/demo.lancedb explain asif-demo/held-out/bird/magpie.png \
	  --labels bird,fruit,vehicle --pairs 4 -o docs/explanation.png

test: .venv/.installed lint types unit  ## everything that must hold before a change lands

quick: .venv/.installed lint types  ## the daily loop: what takes less than two minutes
	$(BIN)/python -m pytest --quiet --numprocesses 2 -m "not slow and not encoders"

slow-tests: .venv/.installed  ## run every test and write down anew which of them `make quick` leaves out
	$(BIN)/python -m pytest --list-slow

lint:
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/lint-imports --no-cache

types:
	$(BIN)/python -m mypy

unit:
	$(BIN)/python -m pytest --numprocesses 2

shared-tests: .venv/.installed  ## only the tests on the development data beside the checkout
	ASIF_SHARED=$(abspath $(SHARED)) $(BIN)/python -m pytest -m shared

bench: .venv/.installed  ## the comparisons in benchmarks/, each a table of ratios
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

cluster: .venv/.installed  ## real workers and real object stores: processes, Ray, moto and Azurite on this machine
	$(BIN)/python -m pip install --quiet --editable ".[dev,ray,s3]" "ray[default]" "moto[server]>=5.2,<6"
	if command -v npm >/dev/null; then npm install --silent --prefix .venv/azurite azurite@3; fi
	RAY_USAGE_STATS_ENABLED=0 $(BIN)/python -m pytest tests/cluster tests/test_docs_scale.py tests/store/test_object_store.py tests/store/test_object_addresses.py tests/store/test_overtaken_writers.py tests/database/test_lease.py tests/store/test_deaths_in_object_stores.py

chaos: .venv/.installed  ## 200 kills with writers and readers going on; prints losses: 0, content found afterwards: 0
	$(BIN)/python tests/chaos.py

chaos-s3: .venv/.installed  ## every command killed, unanswered and paused at every write to an S3 server; hours
	$(BIN)/python -m pip install --quiet --editable ".[dev,s3]" "moto[server]>=5.2,<6"
	EVERY_WRITE=1 $(BIN)/python -m pytest tests/store/test_deaths_in_object_stores.py tests/cluster/test_shared_deaths.py

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build dist site *.egg-info
