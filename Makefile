# everup: `make demo` shows it at work, `make test` proves it. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-servers test-systems lint format soak bench docs dist clean

setup: $(STAMP)

$(STAMP): pyproject.toml tools/setup
	sh tools/setup "$(PYTHON)" "$(VENV)"
	@touch $(STAMP)

demo: setup  ## a real server with two replicas, killed, hung and overloaded
	$(BIN)/python examples/shop/demo.py

test: setup  ## unit, simulation, end to end, typing: under 12 minutes on 2 cores
	$(BIN)/python -m compileall -q src  # hundreds of processes start; PYTHONDONTWRITEBYTECODE may be set
	$(BIN)/python -m pytest tests/unit tests/sim tests/typing tests/issues -n 2 --dist worksteal
	$(BIN)/python -m pytest tests/e2e -n 4 --dist worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

SERVERS := .venv-servers
$(SERVERS)/.installed: tools/servers.txt
	$(PYTHON) -m venv $(SERVERS)
	$(SERVERS)/bin/pip install -q -r tools/servers.txt
	@touch $@

test-servers: setup $(SERVERS)/.installed  ## the recipes of docs/how-to/servers.md with servers that make test has not
	EVERUP_SERVERS=$(CURDIR)/$(SERVERS) $(BIN)/python -m pytest tests/e2e/test_recipes.py -n 2

SYSTEMS ?= nagios zabbix cluster console elastic logstash grpc
test-systems: setup  ## real Nagios, Zabbix, etcd, gRPC, ... (SYSTEMS="nagios zabbix"); downloads stay in ~/.cache/everup-systems
	$(BIN)/python -m pytest $(addprefix tests/systems/,$(SYSTEMS)) --timeout=300

soak: setup  ## 100 000 seeds of the simulation; kills and stops of everup itself under load, with figures
	$(BIN)/python tools/soak.py --first $${EVERUP_FIRST:-0} --seeds $${EVERUP_SEEDS:-100000}
	EVERUP_KILLS=$${EVERUP_KILLS:-200} EVERUP_STOPS=$${EVERUP_STOPS:-10} $(BIN)/python -m pytest tests/e2e/test_kill.py -k kill_loop -s --timeout=86400

bench: setup
	$(BIN)/python bench/all.py

docs: setup  ## what is generated: config, commands, events
	$(BIN)/python -m everup.config
	$(BIN)/python tools/reference.py

dist: setup  ## what others install: everup and everup-tolerate
	$(BIN)/python -m pip install -q build
	EVERUP_DIST=1 $(BIN)/python -m build -o dist .
	$(BIN)/python -m build -o dist packages/tolerate

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
