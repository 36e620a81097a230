# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0

.PHONY: help demo test check docs site bench deb node-test stress ceph-test clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    PVE's storage calls arriving in a Python plugin, step by step"
	@echo "make test    the test suite (tox: every Python found from 3.11 on)"
	@echo "make check   format, lint, types, layering, spelling, generated documents"
	@echo "make bench   what a call costs, side by side with the least it could (BENCH=--short: a minute)"
	@echo "make stress  faults and load in full: kills, mutated frames, hangs, restarts, soak"
	@echo "make ceph-test  pyrbd against a throw-away Ceph cluster on the loopback interface"
	@echo "make docs    write the generated parts of docs/ anew, drawings included"
	@echo "make site    the documents as a site: build/site/index.html"
	@echo "make deb     Debian packages into dist/, checked by lintian"
	@echo "make node-test  these packages on a booted Debian; NODE='--fast', NODE='--debian 12'"

# Each target installs what it needs, says so, and is quick the second time.
demo:
	@tools/setup run
	@.venv/bin/python demo/demo.py

test:
	@tools/setup run dev
	@.venv/bin/tox run $(TOX)

check:
	@tools/setup run dev lint docs
	@tools/check

docs:
	@tools/setup run dev drawings
	@.venv/bin/python tools/generate_docs.py
	@.venv/bin/python tools/drawings.py

site:
	@tools/setup run docs
	@PATH="$$PWD/.venv/bin:$$PATH" tools/make-site build/site

stress:
	@tools/setup run dev
	@cd tests && ../.venv/bin/python -W error -m stress $(STRESS)

bench:
	@tools/setup run bench
	@.venv/bin/python -m benchmarks $(BENCH)

ceph-test:
	@tools/setup run dev
	@tools/ceph-test $(PYTEST)

deb:
	@tools/build-deb

# Says so, and passes, where no node can be booted.
node-test: deb
	@tools/setup run node
	@cd tests && $(or $(PYTHON),python3) -W error -m node $(NODE)

clean:
	rm -rf .venv .tox .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
	find . -name __pycache__ -o -name '*.egg-info' | xargs rm -rf
