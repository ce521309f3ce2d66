# Everything runs in the virtual environment .venv, which the first target makes.
# Variables: PYTHON=python3.12 (the interpreter), ARGS="..." (for the program run),
# UNET3D_DATA=folder (real volumes for tests and benchmarks).

ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
SETUP := @sh scripts/setup_environment
WITH_DISPLAY := sh scripts/with_display
# No test selected (5) is not a failure.
PYTEST := sh -c '"$$0" "$$@" || [ $$? -eq 5 ]' $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test lint types docs napari clean bench bench-gui bench-lazy
.PHONY: pretrain bench-accuracy bench-training-step bench-inference bench-augmentation

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-19s %s\n", $$1, $$2 }' Makefile

demo: ## Train on a generated volume and segment it: no window, no GPU
	$(SETUP)
	$(BIN)/napari-unet3d demo $(ARGS)

test: ## Run all tests and report the coverage of the engine
	$(SETUP) --display dev
	$(WITH_DISPLAY) $(PYTEST) --cov=napari_unet3d.engine --cov-report=term \
	    -n 2 --dist loadgroup $(ARGS)

lint: ## Check style and format
	$(SETUP) dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: ## Check types
	$(SETUP) dev
	$(BIN)/mypy $(ARGS)

docs: ## Draw the pictures of the documentation and take its screenshots
	$(SETUP) --display docs
	$(BIN)/python docs/draw_architecture.py
	$(WITH_DISPLAY) $(BIN)/python docs/take_screenshots.py $(ARGS)

# As the program has it, see napari_unet3d/_thread_waiting.py.
bench bench-%: export GOMP_SPINCOUNT = 2000

bench: ## Measure accuracy beside a random forest, and print the table
	$(SETUP) bench
	$(BIN)/python benchmarks/accuracy.py $(ARGS)

bench-accuracy: ## Measure IoU against seconds beside all peers
	$(SETUP) bench
	$(BIN)/python benchmarks/accuracy.py --at 5 10 20 40 60 120 180 300 --slices 1 2 3 \
	    --seeds 0 1 2 --methods ours forest monai pytorch-3dunet $(ARGS)

bench-training-step: ## Measure training steps a second beside peers
	$(SETUP) bench
	$(BIN)/python benchmarks/training_step.py $(ARGS)

bench-inference: ## Measure speed, memory and seams of the segmentation beside MONAI
	$(SETUP) bench
	$(BIN)/python benchmarks/inference.py $(ARGS)

bench-augmentation: ## Measure the deformation of patches beside peers
	$(SETUP) bench
	$(BIN)/python benchmarks/augmentation.py $(ARGS)

bench-gui: ## Measure how fluent napari stays while training, and what a person waits
	$(SETUP) --display dev
	$(WITH_DISPLAY) $(BIN)/python benchmarks/gui_latency.py $(ARGS)

pretrain: export GOMP_SPINCOUNT = 2000
pretrain: ## Learn a warm start from generated volumes (docs/benchmarks.md has ours)
	$(SETUP)
	$(BIN)/python pretraining/pretrain.py \
	    --output napari_unet3d/engine/warm_start.pt $(ARGS)

bench-lazy: ## Measure the memory of napari while a volume larger than it is used
	$(SETUP) --display dev
	$(WITH_DISPLAY) $(BIN)/python benchmarks/lazy_layer.py $(ARGS)

napari: ## Open napari with a sample, its annotation and the dock widget
	$(SETUP) --display dev
	$(BIN)/python -m napari_unet3d._qt.start $(ARGS)

clean: ## Remove build products and caches, but not .venv
	rm -rf build dist *.egg-info .coverage htmlcov
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
