"""Stage 2: the loss by hand, that it falls, the cut that is fitted, and what a finished run says of itself."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import TrainerControl

from mera_core.checkpoint.folder import read_manifest
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.history.records import Patient, Visit, write_visits
from mera_core.icd.ontology import Ontology
from mera_core.model.losses import Hierarchy, hierarchical_contrastive, threshold_loss
from mera_core.model.sequence import Encoder, SequenceConfig
from tests.tiny import CODES, icd9, tiny_engine, tiny_model
from training.common.config import RankConfig
from training.common.split import split_of
from training.rank import run as rank
from training.rank import setup as rank_setup
from training.rank.batches import HistoryBatches
from training.rank.cut import LabelCounts
from training.rank.run import EMACallback, level_in_words, rank_loss

BOOK = Ontology.load()
HIERARCHY = Hierarchy.from_ontology(CODES, BOOK)


def patients(count: int = 24, seed: int = 0) -> list[Patient]:
    """Two visits; the second's codes follow from the first's."""
    draw, made = random.Random(seed), []
    for n in range(count):
        first = draw.randrange(10)
        follows = [CODES[(first + 1) % 10], CODES[(first + 3) % 10]][: draw.randint(1, 2)]
        made.append(Patient([Visit([CODES[first]]), Visit(follows)], id=f"{seed}-{n}"))
    return made


def batch_of(model, config: RankConfig, cohort: list[Patient]) -> dict:
    data = HistoryBatches(cohort, CODES, Encoder(model.vocabulary, SequenceConfig()), config)
    return data.collate(cohort, random.Random(0))


# --- the loss


def test_the_loss_is_the_weighted_mean_of_both_terms_over_targets() -> None:
    model = tiny_model()
    config = RankConfig(start_weight=0.25, rest_weight=0.5, threshold_weight=0.7, threshold_positive_weight=3.0)
    batch = batch_of(model, config, patients(3))
    assert set(batch["weight"].tolist()) == {0.25, 0.5, 1.0}
    with torch.inference_mode():
        hidden = model.hidden(batch["input_ids"])
        total = weight_sum = 0.0
        for n in range(len(batch["weight"])):
            state = hidden[batch["row"][n], batch["position"][n]][None]
            seen = batch["seen"][batch["seen"][:, 0] == n].clone()
            seen[:, 0] = 0
            scores, eov = model.scores(state, seen)
            positive = batch["positive"][n][None]
            one = hierarchical_contrastive(scores, positive, HIERARCHY).sum()
            one = one + 0.7 * threshold_loss(scores, eov, positive, "independent", 3.0).sum()
            total += float(batch["weight"][n]) * float(one)
            weight_sum += float(batch["weight"][n])
        assert float(rank_loss(model, batch, HIERARCHY, config)) == pytest.approx(total / weight_sum, rel=1e-4)


def test_a_target_with_twice_the_weight_counts_twice() -> None:
    model, config = tiny_model(), RankConfig()
    batch = batch_of(model, config, patients(2))

    def loss(*weights: float) -> float:
        with torch.inference_mode():
            return float(rank_loss(model, batch | {"weight": torch.tensor(weights)}, HIERARCHY, config))

    first, second = loss(1.0, 1e-9), loss(1e-9, 1.0)
    assert first != pytest.approx(second)
    assert loss(2.0, 1.0) == pytest.approx((2 * first + second) / 3, rel=1e-4)
    assert loss(20.0, 10.0) == pytest.approx(loss(2.0, 1.0), rel=1e-5)


def test_cross_entropy_without_a_threshold_is_the_plain_softmax() -> None:
    model, config = tiny_model(), RankConfig(ranking_loss="cross_entropy", threshold="none")
    batch = batch_of(model, config, patients(4))
    with torch.inference_mode():
        scores, _ = model.scores(model.hidden(batch["input_ids"])[batch["row"], batch["position"]], batch["seen"])
        expected = -(scores.log_softmax(1) * batch["positive"]).sum(1).mean()
        assert float(rank_loss(model, batch, HIERARCHY, config)) == pytest.approx(float(expected), rel=1e-5)


def test_a_batch_that_asks_nothing_has_no_loss_instead_of_nan() -> None:
    model, config = tiny_model(), RankConfig()
    batch = batch_of(model, config, [Patient([Visit([CODES[0]])], id="one")])
    assert len(batch["weight"]) == 0
    with torch.inference_mode():
        assert float(rank_loss(model, batch, HIERARCHY, config)) == 0.0


@pytest.mark.parametrize("ranking_loss", ["hierarchical", "cross_entropy"])
def test_the_loss_falls_on_patients_that_it_sees_and_ranking_follows(ranking_loss) -> None:
    model, config = tiny_model(), RankConfig(ranking_loss=ranking_loss)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.2 if parameter.ndim == 2 else 1)
        model.head.bias.zero_()
    cohort = patients(24)
    batch = batch_of(model, config, cohort)
    optimizer, losses = torch.optim.AdamW(model.train().parameters(), lr=1e-2), []
    for _ in range(60):
        loss = rank_loss(model, batch, HIERARCHY, config)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.4 * losses[0]
    engine = tiny_engine(model.eval())
    hits = [engine.rank(replace(p, visits=p.visits[:1])).codes[:2] for p in cohort]
    found = [len({*best} & {*p.visits[1].codes}) / len(p.visits[1].codes) for best, p in zip(hits, cohort, strict=True)]
    assert np.mean(found) > 0.9


# --- averaging


@pytest.mark.parametrize(("decay", "step", "moved"), [(0.5, 1000, 0.5), (0.999, 1, 9 / 11)])  # early on by 2 / 11
def test_the_average_follows_the_weights_and_swaps_back_and_forth(decay, step, moved) -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    average, start = EMACallback(model, decay), float(model.weight)
    with torch.no_grad():
        model.weight.fill_(start + 1)
    average.on_step_end(None, SimpleNamespace(global_step=step), TrainerControl())
    average.swap()
    assert float(model.weight) == pytest.approx(start + moved)
    average.swap()
    assert float(model.weight) == pytest.approx(start + 1)


def test_the_average_of_bfloat16_weights_keeps_what_they_can_not_tell_apart() -> None:
    model = torch.nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    with torch.no_grad():
        model.weight.fill_(1.0)
    average, state = EMACallback(model, 0.999), SimpleNamespace(global_step=1e9)
    with torch.no_grad():
        model.weight.fill_(1.5)
    for _ in range(1000):
        average.swap()  # a look at the validation patients between
        average.swap()
        average.on_step_end(None, state, TrainerControl())
    assert float(model.weight) == 1.5
    assert float(average.kept["weight"]) == pytest.approx(1.5 - 0.5 * 0.999**1000, abs=1e-4)
    average.swap()
    assert float(model.weight) == pytest.approx(1.316, abs=0.004)


# --- the label space and the cut


def test_the_label_space_may_be_every_billable_code(tiny_stage1, invented_cohort, tmp_path, ontology) -> None:
    config = RankConfig(start=str(tiny_stage1), data=str(invented_cohort), format="table")
    data = rank_setup.prepare(config, tmp_path / "data")
    padded = rank_setup.prepare(replace(config, label_space="billable"), tmp_path / "billable")
    billable = set(ontology.billable("ICD9"))
    assert set(padded.counts.labels) == billable | set(data.counts.labels) and len(billable) == 14567
    assert padded.manifest.input_codes == data.manifest.label_space == data.counts.labels  # what was seen is read
    assert padded.engine.label_space == padded.manifest.label_space == padded.counts.labels
    assert padded.counts.rate.min() == data.counts.rate.min() > 0
    assert padded.manifest.method["rank"]["label_space"] == "billable"
    assert padded.manifest.method["rank"]["start"] == tiny_stage1.name


def test_the_cut_is_fitted_on_fewer_patients_where_there_are_many_labels(
    tiny_stage1, invented_cohort, tmp_path, monkeypatch
) -> None:
    config = RankConfig(start=str(tiny_stage1), data=str(invented_cohort), format="table")
    setup = rank_setup.prepare(config, tmp_path / "out")
    assert setup.for_cut == setup.validation and len(setup.validation) > 6
    monkeypatch.setattr("training.rank.cut.CUT_SCORES", 6 * len(setup.counts.labels))
    assert len(setup.for_cut) == 6 and setup.for_cut == setup.for_cut  # the same ones whenever it is asked
    rank_setup.cut(setup)
    assert setup.manifest.method["cut"]["patients"] == 6 and setup.manifest.calibration


def test_label_rates_count_next_visits_only() -> None:
    a, b, c = sorted(icd9("428.0", "486", "401.9"))
    counts = LabelCounts.of([Patient([Visit([a]), Visit([b]), Visit([b, c])]), Patient([Visit([a])])])
    assert counts.labels == (a, b, c)
    assert counts.rate == pytest.approx([0.5 / 3, 2.5 / 3, 1.5 / 3])  # two next visits


def test_the_level_in_words() -> None:
    labels = icd9("428", "486", "428.0", "427.31")
    assert level_in_words(labels, BOOK) == "ICD9: 2 categories, 2 codes"


# --- a whole run


def test_a_finished_run_says_what_it_was_made_of(tiny_checkpoint, tiny_stage1, invented_cohort) -> None:
    manifest = read_manifest(tiny_checkpoint)
    assert manifest.stage == "rank" and manifest.name == "tiny" and manifest.systems == ("ICD9",)
    assert manifest.method["memorize"] == read_manifest(tiny_stage1).method["memorize"]
    assert manifest.method["rank"]["epochs"] == 6 and manifest.method["rank"]["data"] == "invented.csv"
    assert manifest.method["rank"]["start"] == "tiny-stage1"
    assert manifest.method["cut"]["patients"] > 0
    assert list(manifest.label_space) == sorted(manifest.label_space) == sorted(manifest.input_codes)
    parts = manifest.data["parts"]
    assert sum(part["patients"] for part in parts.values()) == 150
    assert all(0 < part["with_two_visits"] <= part["patients"] for part in parts.values())
    assert len(manifest.data["sha256"]) == 64 and manifest.data["format"] == "table"
    assert "/" not in manifest.method["rank"]["data"] + manifest.method["rank"]["start"] + manifest.data["source"]


def test_the_label_space_holds_training_patients_codes_only(tiny_checkpoint, invented_cohort) -> None:
    from mera_core.readers import read

    cohort = read(str(invented_cohort), "table").patients
    trained = {code for p in cohort if split_of(p.id) == "train" for visit in p.visits for code in visit.codes}
    assert set(read_manifest(tiny_checkpoint).label_space) == trained


def test_dropout_is_a_matter_of_training_only(tiny_checkpoint) -> None:
    assert Engine.load(tiny_checkpoint).model.backbone.config.attention_dropout == 0.0
    model = tiny_model().train()
    batch = batch_of(model, RankConfig(), patients(4))
    with torch.no_grad():
        rank.set_attention_dropout(model.backbone, 0.5)
        torch.manual_seed(0)
        one, other = (float(rank_loss(model, batch, HIERARCHY, RankConfig())) for _ in range(2))
        rank.set_attention_dropout(model.backbone, 0.0)
        still = [float(rank_loss(model, batch, HIERARCHY, RankConfig())) for _ in range(2)]
    assert one != other and still[0] == still[1]


# --- refused


def written(tmp_path, cohort: list[Patient]):
    path = tmp_path / "cohort.csv"
    write_visits(cohort, path)
    return path


def test_codes_without_a_token_are_named(tiny_stage1, tmp_path) -> None:
    from mera_core.icd.ontology import Code

    ids = [f"p{n}" for n in range(20)]
    foreign = [Visit([Code("ICD10", "I50.9")]), Visit([Code("ICD10", "I10")])]
    path = written(tmp_path, [Patient(foreign, id=identity) for identity in ids])
    config = RankConfig(start=str(tiny_stage1), data=str(path), format="table")
    with pytest.raises(InputError, match=r"2 codes of which the stage-1 model has no token, the first is ICD10:I10"):
        rank.run(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["train", "validation"])
def test_data_that_cannot_train_or_fit_the_cut_are_refused_before_training(
    tiny_stage1, tmp_path, missing, monkeypatch
) -> None:
    cohort = [Patient(p.visits[:1] if split_of(p.id) == missing else p.visits, id=p.id) for p in patients(150, seed=8)]
    monkeypatch.setattr(rank, "train", lambda *args, **kwargs: pytest.fail("training began"))
    config = RankConfig(start=str(tiny_stage1), data=str(written(tmp_path, cohort)), format="table", save_every=0)
    with pytest.raises(InputError, match="two visits"):
        rank.run(config, tmp_path / "out")


def test_the_loss_for_new_codes_leaves_the_history_s_own_out() -> None:
    model = tiny_model()
    batch = batch_of(model, RankConfig(), [Patient([Visit([CODES[0], CODES[1]]), Visit([CODES[0], CODES[4]])], id="p")])
    with torch.inference_mode():
        states = model.hidden(batch["input_ids"])[batch["row"], batch["position"]]
        scores, _ = model.scores(states, batch["seen"])
        rest = [2, 3, 4, 5, 6, 7, 8, 9]
        groups = Hierarchy.from_ontology([CODES[label] for label in rest], BOOK)
        expected = hierarchical_contrastive(scores[:, rest], batch["positive"][:, rest], groups).mean()
        plain, both = (
            float(rank_loss(model, batch, HIERARCHY, RankConfig(new_code_weight=weight))) for weight in (0.0, 0.5)
        )
    assert both - plain == pytest.approx(0.5 * float(expected), rel=1e-4) and both > plain


def test_a_second_turn_goes_on_with_the_head_of_the_first(tiny_checkpoint, invented_cohort, tmp_path) -> None:
    config = RankConfig(start=str(tiny_checkpoint), data=str(invented_cohort), learning_rate=0.003)
    setup = rank_setup.prepare(config, tmp_path / "second")
    first = Engine.load(tiny_checkpoint).model.head
    assert torch.equal(setup.engine.model.head.bias, first.bias) and first.bias.std() > 0
    assert float(setup.engine.model.head.recorded_slope) == 1 and not setup.engine.model.head.cut_offset.any()
    method = setup.manifest.method
    assert method["rank_before"] == read_manifest(tiny_checkpoint).method["rank"]
    assert method["rank"]["learning_rate"] == 0.003
