# Every command a newcomer needs; `make` lists them. Works with GNU make 3.81 and later, on Linux and macOS.

PYTHON ?= python3
PORT ?= 8501
WORKERS ?= 2
RUNS := runs
BIN := .venv/bin
STAGE1 := $(RUNS)/mera-mini-stage1
TEACHER := $(RUNS)/mera-mini-teacher
STAGE2 := $(RUNS)/mera-mini
BUNDLED := sample_data/mera-mini
BASELINES := docs/evidence/baselines.json
ROWS := --only "code frequency" --only "copy the past, then frequency" --only "logistic regression on the history" \
	--only "logistic regression told the record" --only "network told the record"
ICD10 := $(RUNS)/mera-icd10

export PYTHON

.DEFAULT_GOAL := help
.PHONY: help app test test-slow lint format checkpoint checkpoint-icd10 clean data-named always

help: ## Show this list
	@echo "MERA: diagnosis ranking from a patient's history. Research use, not for clinical decisions."
	@echo
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/  make \1	\2/p' Makefile | expand -t 25

app: ## Start the app in the browser (PORT=8501 to change)
	@.ci/prepare app
	@exec $(BIN)/python -m mera_core app --port $(PORT)

test: ## Run the tests (ARGS=tests/model/test_losses.py ...; WORKERS=2 at once)
	@.ci/prepare test
	@echo "== Running the tests"
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

test-slow: ## Run the slow tests, minutes each; a release must pass them too
	@$(MAKE) --no-print-directory test ARGS="-m slow $(ARGS)"

lint: ## Check style with ruff and types with mypy
	@.ci/prepare lint
	@echo "== Checking style and types"
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy

format: ## Apply ruff's formatting and safe fixes
	@.ci/prepare lint
	@$(BIN)/python -m ruff check --fix .
	@$(BIN)/python -m ruff format .

checkpoint: data-named ## Rebuild the bundled checkpoint (DATA=folder of UCI Diabetes 130)
	@.ci/prepare app
	@$(MAKE) --no-print-directory $(STAGE2)/mera.json DATA="$(DATA)"
	@echo "== Stage 4 of 4: measure it and put it in place -> $(BUNDLED)"
	@$(BIN)/python -m training baselines --checkpoint $(STAGE2) --data "$(DATA)" --out $(BASELINES) $(ROWS)
	@$(BIN)/python -m training publish $(STAGE2) $(BUNDLED) --data "$(DATA)" --readme README.md --baselines $(BASELINES)

data-named:
	@test -n "$(DATA)" || { echo "Stopped: name the patient records: make checkpoint DATA=path/to/uci_diabetes130" >&2; exit 2; }
	@test -e "$(DATA)" || { echo "Stopped: there is nothing at DATA=$(DATA)" >&2; exit 2; }

# A finished stage is kept while its configuration and data stay the same; a broken one goes on from its last step.
$(STAGE1)/mera.json: training/configs/mera-mini-memorize.yaml
	@echo "== Stage 1 of 4: memorize the code book -> $(STAGE1)"
	@$(BIN)/python -m training memorize --config $< --out $(STAGE1)

$(TEACHER)/teacher.json: training/configs/mera-mini-teacher.yaml $(RUNS)/data-used
	@echo "== Stage 2 of 4: teachers that know the whole record -> $(TEACHER)"
	@$(BIN)/python -m training teach --config $< --data "$(DATA)" --out $(TEACHER)

$(STAGE2)-first/mera.json: training/configs/mera-mini-rank.yaml $(STAGE1)/mera.json $(TEACHER)/teacher.json $(RUNS)/data-used
	@echo "== Stage 3 of 4: rank the next visit's codes -> $(STAGE2)-first"
	@$(BIN)/python -m training rank --config $< --start $(STAGE1) --teacher $(TEACHER) --data "$(DATA)" --out $(STAGE2)-first

$(STAGE2)-second/mera.json: training/configs/mera-mini-rank-2.yaml $(STAGE2)-first/mera.json
	@echo "== Stage 3 of 4, second turn -> $(STAGE2)-second"
	@$(BIN)/python -m training rank --config $< --start $(STAGE2)-first --teacher $(TEACHER) --data "$(DATA)" --out $(STAGE2)-second

$(STAGE2)/mera.json: training/configs/mera-mini-rows.yaml $(STAGE2)-second/mera.json
	@echo "== Stage 3 of 4, the rows of forgotten codes and the cut-off -> $(STAGE2)"
	@$(BIN)/python -m training memorize --config $< --out $(STAGE2)-rows
	@$(BIN)/python -m training fit-cut $(STAGE2)-rows --data "$(DATA)" --out $(STAGE2)

checkpoint-icd10: ## Rebuild the checkpoint that memorized ICD-10-CM (hours; needs no patients)
	@.ci/prepare app
	@$(MAKE) --no-print-directory $(ICD10)-rows-3/mera.json
	@echo "== Stage 4 of 4: measure it and put it in place -> sample_data/mera-icd10"
	@$(BIN)/python -m training publish $(ICD10)-rows-3 sample_data/mera-icd10

$(ICD10)/mera.json: training/configs/mera-icd10-memorize.yaml
	@echo "== Stage 1 of 4: memorize the code book -> $(ICD10)"
	@$(BIN)/python -m training memorize --config $< --out $(ICD10)

$(ICD10)-maps/mera.json: training/configs/mera-icd10-maps.yaml $(ICD10)/mera.json
	@echo "== Stage 2 of 4: the equivalence maps -> $(ICD10)-maps"
	@$(BIN)/python -m training memorize --config $< --out $(ICD10)-maps

$(ICD10)-rows/mera.json: training/configs/mera-icd10-rows.yaml $(ICD10)-maps/mera.json
$(ICD10)-rows-2/mera.json: training/configs/mera-icd10-rows-2.yaml $(ICD10)-rows/mera.json
$(ICD10)-rows-3/mera.json: training/configs/mera-icd10-rows-3.yaml $(ICD10)-rows-2/mera.json
$(ICD10)-row%/mera.json:
	@echo "== Stage 3 of 4: rows of what is still unknown, in three turns -> $(@D)"
	@$(BIN)/python -m training memorize --config $< --out $(@D)

$(RUNS)/data-used: always
	@mkdir -p $(RUNS)
	@test "$$(cat $@ 2>/dev/null)" = "$(DATA)" || echo "$(DATA)" > $@

always:

clean: ## Remove .venv and caches; runs/ and the checkpoint stay
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
