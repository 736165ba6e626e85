# make demo   train a policy, evaluate all of them              make lint    ruff and mypy
# make test   the test suite                                   make clean   remove what make made
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One thread each: two threads on a busy two-core machine were up to 70 times slower.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

# The best constant plan of the default scenario (docs/headroom.md).
BEST := constant:medium=kv,keep=0.5,bits=4,when=predicted,lead_s=5

.PHONY: demo test lint clean
demo: $(READY)
	$(BIN)/python train.py --config configs/handover.yaml --out runs/demo/ppo --overwrite
	$(BIN)/python evaluate.py --config configs/handover.yaml --episodes 16 --seed 1000 --out runs/demo \
		--policies random tho cho ctho jmsra pallas token-aware deadline greedy-planner $(BEST) runs/demo/ppo

test: $(READY)
	$(BIN)/python -m pytest --durations=15

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy agents benchmarks envs evaluation kvbackend settings training \
		commands.py compat.py errors.py files.py experiment.py palette.py threads.py train.py evaluate.py

# torch comes first and pinned: a plain `torch` would bring several GB of CUDA libraries to a machine without a GPU.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
