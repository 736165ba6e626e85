# make demo   train a policy, evaluate all of them              make lint    ruff and mypy
# make test   the test suite                                   make clean   remove what make made
# make test-rllib   the tests of train.engine=rllib, in an environment of its own with Ray
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RLLIB := .venv-rllib
READY := $(VENV)/.ready
# One thread each: two threads on a busy two-core machine were up to 70 times slower.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

# The best constant plan of the default scenario (docs/headroom.md).
BEST := constant:medium=kv,keep=0.5,bits=4,when=predicted,lead_s=5

.PHONY: demo test test-rllib lint clean
demo: $(READY)
	$(BIN)/python train.py --config configs/demo.yaml --out runs/demo/ppo --overwrite
	$(BIN)/python evaluate.py --config configs/handover.yaml --episodes 16 --seed 1000 --workers 2 --out runs/demo \
		--policies random tho cho ctho jmsra pallas token-aware deadline greedy-planner $(BEST) runs/demo/ppo roamer

test: $(READY)
	$(BIN)/python -m pytest --durations=15

# Ray's workers are told to yield to all other processes (nice 15); on a busy machine they would hardly run.
test-rllib: export RAY_worker_niceness ?= 0
test-rllib: $(RLLIB)/.ready
	$(RLLIB)/bin/python -m pytest --durations=15 tests/test_rllib_engine.py tests/test_rllib_without_ray.py \
		tests/test_shared_scorer.py tests/envs/test_libraries.py -k "rllib or shared_scorer"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy agents benchmarks envs evaluation kvbackend settings training \
		commands.py compat.py errors.py files.py experiment.py palette.py processes.py threads.py train.py evaluate.py

# torch comes first and pinned: a plain `torch` would bring several GB of CUDA libraries to a machine without a GPU.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# Ray asks for one exact Gymnasium.
$(RLLIB)/.ready: pyproject.toml constraints-rllib.txt
	$(PYTHON) -m venv $(RLLIB)
	$(RLLIB)/bin/python -m pip install --quiet --constraint constraints-rllib.txt torch
	$(RLLIB)/bin/python -m pip install --quiet --constraint constraints-rllib.txt --editable '.[rllib,dev]'
	touch $@

clean:
	rm -rf $(VENV) $(RLLIB) build dist *.egg-info runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
