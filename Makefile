# `make demo` and `make test` work on a bare clone with python3 and make; both set up .venv once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_OUT ?= demo-out
GUIDE_OUT ?= guide-out

.PHONY: demo demo-guide test test-fast test-lowest test-faults bench-engines lint bench-quantizers \
	bench-fast-f16 bench-search bench-tokenizer bench-loader bench-prior bench-prior-step bench-sampling bench-scale \
	bench-sizes bench-coordinates bench-gpu same-codes fuzz clean

demo: $(READY)
	$(BIN)/img2tokens demo $(DEMO_OUT)

# Ten prompts steer ten pictures, by a tiny CLIP that is trained on the way.
demo-guide: $(READY)
	$(BIN)/img2tokens demo $(GUIDE_OUT) --guide

test: lint
	$(BIN)/python -m pytest -n 2

test-fast: lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

# With the lowest versions that setup.cfg allows: make test-lowest PYTHON=python3.10
test-lowest:
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/pip install --quiet uv
	$(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest/bin/python \
		--resolution lowest-direct --editable '.[test]'
	$(VENV)-lowest/bin/python -m pytest -n 2

# Kills jobs at drawn moments, continues them, compares every byte; some minutes.
test-faults: $(READY)
	$(BIN)/python tests/faults.py $(if $(RUNS),--runs $(RUNS)) $(if $(SEED),--seed $(SEED))

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy

# Trains every kind of quantizer for MINUTES on the images in CORPUS, one after the other.
MINUTES ?= 4
bench-quantizers: $(READY)
	$(BIN)/python benchmarks/quantizers.py $(if $(CORPUS),$(CORPUS),$(error say which images: \
		make bench-quantizers CORPUS=folder [MINUTES=4])) --minutes $(MINUTES)

bench-fast-f16: $(READY)
	$(BIN)/python benchmarks/fast_f16.py $(if $(CORPUS),$(CORPUS),$(error say which images: \
		make bench-fast-f16 CORPUS=folder))

# The images in CORPUS by every engine, on loopback: the same bytes, and the time of each.
bench-engines: $(READY)
	$(BIN)/python benchmarks/engines.py $(if $(and $(CORPUS),$(TOKENIZER)),$(CORPUS) $(TOKENIZER),\
		$(error say which images: make bench-engines CORPUS=folder TOKENIZER=folder))

# The images in CORPUS, and the segmentation or other maps in MAPS, from every kind of source: the
# same codes?
same-codes: $(READY)
	$(BIN)/python benchmarks/same_codes.py $(if $(and $(CORPUS),$(TOKENIZER)),$(CORPUS) $(TOKENIZER),\
		$(error say which images: make same-codes CORPUS=folder TOKENIZER=folder \
		[MAPS=folder MAP_TOKENIZER=folder])) $(if $(MAPS),--maps $(MAPS) \
		$(or $(MAP_TOKENIZER),$(error say what encodes the maps: MAP_TOKENIZER=folder)))

bench-search: $(READY)
	$(BIN)/python benchmarks/search.py

bench-loader: $(READY)
	$(BIN)/python benchmarks/loader.py

# Our sequences and blocks beside the published ones on the tokens in TOKENS, or on drawn scenes.
bench-prior: MINUTES = 5
bench-prior: $(READY)
	$(BIN)/python benchmarks/prior_layouts.py $(TOKENS) --minutes $(MINUTES) \
		$(if $(CONDITION),--condition $(CONDITION))

# Two priors on small crops of the images in CORPUS, one of which is told where each crop lies.
bench-coordinates: $(READY)
	$(BIN)/python benchmarks/coordinates.py $(if $(CORPUS),$(CORPUS),$(error say which images: \
		make bench-coordinates CORPUS=folder [MINUTES=4])) --minutes $(MINUTES)

bench-prior-step: $(READY)
	$(BIN)/python benchmarks/prior_step.py

bench-tokenizer: $(READY)
	$(BIN)/python benchmarks/codec.py

bench-sampling: $(READY)
	$(BIN)/python benchmarks/sampling.py

# Plan, resume and audit of KEYS keys in SHARDS shards, simulated; then the memory of encode jobs.
KEYS ?= 10000000
SHARDS ?= 10000
IMAGES ?= 2000 40000
bench-scale: $(READY)
	$(BIN)/python benchmarks/plan_scale.py --num-keys $(KEYS) --num-shards $(SHARDS) \
		--receipts $$(($(SHARDS) / 2))
	$(BIN)/python benchmarks/job_memory.py --num-images $(IMAGES)

bench-sizes: $(READY)
	$(BIN)/python benchmarks/file_sizes.py

# Says so, and ends well, where there is no GPU.
bench-gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py

# Damages 2000 files with SEED and reads them in a process with a limit of memory; see docs/images.md.
fuzz: $(READY)
	$(BIN)/python benchmarks/fuzz.py $(if $(SEED),--seed $(SEED))

# torch first and alone: the other packages would otherwise choose a build for it.
$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) $(DEMO_OUT) $(GUIDE_OUT) build *.egg-info
