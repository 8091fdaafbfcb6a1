PYTHON ?= python

.PHONY: install format check lint types test slow smoke bench

install: ## everything a developer needs
	$(PYTHON) -m pip install -e ".[dev]"

format: ## rewrite the code in the project's format
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

check: lint types test ## the one door: format, lint, types, tests

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

types:
	$(PYTHON) -m mypy

test:
	$(PYTHON) -m pytest

slow: ## what takes too long for every day: fifty kills at random moments
	$(PYTHON) -m pytest -m slow

smoke: ## everything a run does, for all four families, in about a minute
	$(PYTHON) train.py -m model=mlp,cnn,rnn,resnet data=synthetic trainer=smoke logger=csv

bench: ## speed against the machine's limit, in about 25 minutes; leave the machine alone meanwhile
	$(PYTHON) -m benchmarks --markdown outputs/benchmarks.md
