PYTHON ?= python

.PHONY: install format check lint types docs test slow smoke bench paper

install: ## everything a developer needs
	$(PYTHON) -m pip install -e ".[dev]"

format: ## rewrite the code in the project's format
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

check: lint types test ## what to run before every commit: format, lint, types and the tests that are not slow

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

types:
	$(PYTHON) -m mypy

docs: ## the documentation as a site in outputs/site, and nothing else in it: a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet

test: ## all tests but the slow ones and those for a GPU
	$(PYTHON) -m pytest

slow: ## the slow tests with more kills and damages, and fuzzing with more examples, than in CI
	FER_NUM_KILLS=13 FER_NUM_DAMAGES=50 $(PYTHON) -m pytest -m "slow and not gpu"
	FER_NUM_EXAMPLES=150 $(PYTHON) -m pytest tests/faults/test_fuzz.py tests/faults/test_fuzz_readers.py tests/faults/test_fuzz_data_sets.py

smoke: ## everything a run does, for all four families, in about a minute
	$(PYTHON) train.py -m model=mlp,cnn,rnn,resnet data=synthetic trainer=smoke logger=csv

bench: ## speed against the machine's limit, in about 25 minutes; leave the machine alone meanwhile
	$(PYTHON) -m benchmarks --markdown outputs/benchmarks.md

RUNS = outputs/published
SIDE_BY_SIDE = hydra/launcher=joblib hydra.launcher.n_jobs=$(JOBS) num_threads=1 logger=csv resume=auto
JOBS ?= -1

paper: ## the runs behind README's tables on FER-2013, hours on two cores, and their tables; continues where it stopped
	$(PYTHON) train.py -m experiment=paper model=mlp,rnn,cnn seed=0,1,2 $(SIDE_BY_SIDE) hydra.sweep.dir=$(RUNS)/paper
	$(PYTHON) train.py -m experiment=improved_mlp,improved_rnn,improved_cnn,improved_resnet $(SIDE_BY_SIDE) hydra.sweep.dir=$(RUNS)/improved
	$(PYTHON) train.py -m experiment=paper model=resnet $(SIDE_BY_SIDE) hydra.sweep.dir=$(RUNS)/paper_resnet
	$(PYTHON) -m results $(RUNS)/paper $(RUNS)/improved $(RUNS)/paper_resnet
