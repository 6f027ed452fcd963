"""Rows that the model makes of definitions: what is asked, what is learned, what is written into the table."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mera_core.checkpoint.folder import load_checkpoint
from mera_core.common.errors import InputError
from mera_core.icd.ontology import Ontology
from mera_core.model.network import common_direction
from mera_core.model.prompts import CODE, DEFINITION, question_ids
from mera_core.model.recall import last_states
from tests.tiny import CODES, tiny_model, tiny_vocabulary
from training.common.config import MemorizeConfig
from training.memorize import run as memorize
from training.memorize.encoded_rows import RUN_OF_CODES, EncodedBatches, encoded, encoded_loss, fill_rows, in_runs
from training.memorize.loss import memorize_loss
from training.memorize.questions import Question, QuestionBatches, QuestionSampler
from training.memorize.recall_eval import codes_exact, definitions_exact

BOOK = Ontology.load()
SETTINGS = MemorizeConfig(
    hidden_size=64, intermediate_size=128, layers=2, heads=2, batch_size=8, encoded_epochs=2.0, common_direction=2.0
)


def with_all_above(codes=CODES) -> list:
    """Codes and everything above them, in book order."""
    kept = {BOOK.ancestor_at(code, level) for code in codes for level in range(1, BOOK.level(code) + 1)} | set(codes)
    return [node.code for node in BOOK.nodes("ICD9") if node.code in kept]


@pytest.fixture
def few_codes(monkeypatch) -> list:
    """Forty codes, which stage 1 takes for the whole book."""
    codes = BOOK.billable("ICD9")[:40]
    monkeypatch.setattr(memorize, "code_set", lambda ontology, systems: {c: BOOK.definition(c) for c in codes})
    return codes


@pytest.fixture
def model():
    codes = with_all_above()
    return tiny_model(codes, tiny_vocabulary(codes))


def batches(model, codes, **changes) -> EncodedBatches:
    config = replace(SETTINGS, **changes)
    sampler = QuestionSampler(model.vocabulary, BOOK, codes, with_equivalents=bool(config.equivalents_share))
    return EncodedBatches(sampler, codes, config)


def test_every_code_is_asked_once_a_pass_and_neighbours_share_a_batch():
    codes = BOOK.billable("ICD9")[:100]
    drawn = in_runs(codes, random.Random(3))
    assert sorted(drawn) == sorted(codes) and drawn != codes
    together = sum(codes.index(a) + 1 == codes.index(b) for a, b in itertools.pairwise(drawn))
    assert together >= len(codes) * (1 - 1.5 / RUN_OF_CODES)


def test_a_batch_holds_each_definition_twice_and_depends_on_its_number_alone(model):
    codes = list(model.vocabulary.ids)
    data, again = batches(model, codes), batches(model, codes)
    for index in (0, len(data) - 1):
        for part, same in zip(data[index]["parts"], again[index]["parts"], strict=True):
            assert all(torch.equal(part[name], same[name]) for name in part)
    item, words = data[0], model.vocabulary.n_words
    for part in item["parts"]:
        for asked, end, question, labels in zip(*part.values(), strict=True):
            (code,) = question[question > words].tolist()
            definition = model.vocabulary.words(BOOK.definition(model.vocabulary.code_at[code]))
            assert labels[labels >= 0].tolist() == [*definition, model.vocabulary.eos]
            inside = asked[: end + 1].tolist()
            assert any(inside[i : i + len(definition)] == definition for i in range(len(inside)))


@pytest.mark.parametrize("taken", [1, 3])
def test_the_loss_is_that_of_a_table_that_holds_the_encoded_rows(model, taken):
    """By hand: encode, write the rows into a copy of the table, ask as always, and take the cross-entropies.

    With every third code of the book in the step, some of what is above them is not in it.
    """
    every, words = list(model.vocabulary.ids), model.vocabulary.n_words
    data = batches(model, every, batch_size=len(every))
    data._batches = [every[::taken]]
    item, common = data[0], 2.0
    asked = [*item["parts"], *([item["above"]] if "above" in item else [])]
    ours = encoded_loss(model, item, common)
    with torch.no_grad():
        ends = [states_at_end(model, one["definitions"], one["ends"]) for one in asked]
        rows = F.normalize(torch.cat(ends), dim=-1) + common * common_direction(ends[0].shape[1])
        ids = [question[question > words] for part in item["parts"] for question in part["input_ids"]]
        if "above" in item:
            ids.append(torch.tensor([model.vocabulary.ids[code] for code in above_of(model, item, data)]))
        ids = torch.cat(ids)
        table = model.backbone.get_input_embeddings().weight
        before = table.clone()
        table[ids] = rows
        states, labels = [], []
        for part in item["parts"]:
            hidden = model.hidden(part["input_ids"])
            states.append(hidden[part["labels"] >= 0])
            labels.append(part["labels"][part["labels"] >= 0])
        hierarchy = item["hierarchy"]
        ends.append(states_at_end(model, hierarchy["input_ids"], hierarchy["ends"]))
        places = torch.cat([torch.arange(len(rows)), hierarchy["answers"]])
        candidates = torch.cat([before[: words + 1], rows])
        total = F.cross_entropy(torch.cat(states) @ candidates.T, torch.cat(labels))
        total += F.cross_entropy(torch.cat(ends) @ candidates.T, words + 1 + places)
        table.copy_(before)
    assert ("above" in item) == (taken == 3)
    assert ours.item() == pytest.approx(float(total), rel=1e-5)


def states_at_end(model, ids, ends):
    return model.hidden(ids)[torch.arange(len(ends)), ends]


def above_of(model, item, data) -> list:
    """Codes of `item`'s `above`, known by their definitions' words."""
    titles = {tuple(model.vocabulary.words(BOOK.definition(code))): code for code in model.vocabulary.ids}
    found = []
    for ids, end in zip(item["above"]["definitions"].tolist(), item["above"]["ends"].tolist(), strict=True):
        inside = ids[: end + 1]
        spans = (tuple(inside[i:j]) for i in range(len(inside)) for j in range(len(inside), i, -1))
        found.append(max((titles[span] for span in spans if span in titles), key=lambda c: len(BOOK.definition(c))))
    return found


def test_hierarchy_questions_are_answered_by_what_is_above_the_code_asked_about(model):
    codes = list(model.vocabulary.ids)
    data = batches(model, codes, hierarchy_share=2.0)
    data._told_apart = frozenset(codes) - {BOOK.parse("401", "ICD9")}  # such an ancestor is not asked for
    seen = 0
    for number in range(len(data)):
        item, words = data[number], model.vocabulary.n_words
        order = [
            model.vocabulary.code_at[int(question[question > words])]
            for part in item["parts"]
            for question in part["input_ids"]
        ]
        order += above_of(model, item, data) if "above" in item else []
        assert len(set(order)) == len(order)
        if "hierarchy" not in item:
            continue
        hierarchy = item["hierarchy"]
        for ids, end, answer, place in zip(
            *(hierarchy[name] for name in ("input_ids", "ends", "answers", "places")), strict=True
        ):
            (code,) = (model.vocabulary.code_at[int(i)] for i in ids if i > words)
            assert order[place] == code
            text = model.vocabulary.text(ids[: end + 1].tolist()).lower()
            names = BOOK.level_names(code.system)
            (level,) = [n for n, name in enumerate(names, 1) if re.search(rf"\b{re.escape(name)}\b", text)]
            assert order[answer] == BOOK.ancestor_at(code, level) != BOOK.parse("401", "ICD9")
            seen += 1
    assert seen > 4


def test_what_comes_after_has_a_share_of_the_rates():
    config = replace(SETTINGS, learning_rate=0.002, muon_learning_rate=0.004, row_learning_rate=0.0003)
    after = memorize.with_rates(config, 0.25)
    assert (after.learning_rate, after.muon_learning_rate, after.row_learning_rate) == (0.0005, 0.001, 0.0003)
    with pytest.raises(InputError, match="rates_after_encoding must be above 0"):
        replace(config, rates_after_encoding=0.0)


def test_gradients_reach_the_body_through_what_stands_in_for_rows_and_no_code_row(model):
    codes = list(model.vocabulary.ids)
    encoded_loss(model, batches(model, codes)[0], 2.0).backward()
    gradient = model.backbone.get_input_embeddings().weight.grad
    assert gradient[: model.vocabulary.n_words].abs().sum() > 0
    assert gradient[model.vocabulary.n_words + 1 :].abs().sum() == 0


def test_filled_rows_are_what_the_definitions_gave(model):
    codes = list(model.vocabulary.ids)
    states = [
        last_states(model, [question_ids(CODE, BOOK.definition(c), model.vocabulary, p) for c in codes]) for p in (0, 1)
    ]
    fill_rows(model, codes, BOOK, 0.5, batch_size=3)
    rows = model.backbone.get_input_embeddings().weight[[model.vocabulary.ids[code] for code in codes]]
    assert torch.allclose(rows, encoded(torch.stack(states).mean(0), 0.5), atol=1e-6)
    assert not model.training


def test_equivalents_are_asked_with_the_code_they_lead_to():
    new = [BOOK.parse(code, "ICD10") for code in ("I50.9", "I10", "E11.9")]
    model = tiny_model(new, tiny_vocabulary(new))
    item = batches(model, new, equivalents_share=1.0)[0]
    words, mapped = model.vocabulary.n_words, item["equivalents"]
    order = [
        model.vocabulary.code_at[int(question[question > words])]
        for part in item["parts"]
        for question in part["input_ids"]
    ]
    for ids, end, place in zip(mapped["input_ids"], mapped["ends"], mapped["answers"], strict=True):
        asked = re.search(r"ICD-9-CM ([\dV]+(\.\d+)?)", model.vocabulary.text(ids[: end + 1].tolist()))
        assert order[place] in BOOK.equivalents(BOOK.parse(asked[1], "ICD9"), "ICD10")
    with_maps, without = encoded_loss(model, item, 2.0), encoded_loss(model, {"parts": item["parts"]}, 2.0)
    assert torch.isfinite(with_maps) and with_maps != without


def test_stage_1_begins_with_them_and_remembers_after_few_passes(tmp_path, monkeypatch):
    codes = BOOK.billable("ICD9")[:: len(BOOK.billable("ICD9")) // 60]
    monkeypatch.setattr(memorize, "code_set", lambda ontology, systems: {c: BOOK.definition(c) for c in codes})
    config = replace(
        SETTINGS, word_pieces=600, epochs=10, encoded_epochs=80.0, batch_size=32, optimizer="muon", save_every=0,
        muon_learning_rate=0.01, learning_rate=0.005, row_learning_rate=0.0005, hierarchy_share=0.0, epochs_on_missed=2,
    )  # fmt: skip
    memorize.run(config, tmp_path / "out")
    model, manifest = load_checkpoint(tmp_path / "out")
    assert manifest.method["memorize"]["encoded_epochs"] == 80.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "out"]
    words, back = definitions_exact(model.eval(), codes, BOOK, 0)[0], codes_exact(model, codes, BOOK, 0)[0]
    assert sum(words) >= 0.9 * len(codes) and sum(back) >= 0.9 * len(codes)


# --- what is not known after them is asked about most


def test_rows_that_only_stand_against_an_answer_keep_still(model):
    codes = list(model.vocabulary.ids)
    sampler = QuestionSampler(model.vocabulary, BOOK, codes)
    asked, rng = codes[3:6], random.Random(1)
    drawn = [
        Question(DEFINITION, asked[0]),
        Question(CODE, asked[1], asked[1]),
        Question("chapter", asked[2], codes[0]),
    ]
    batch = sampler.batch(drawn, rng, 4)
    losses = {}
    for still in (False, True):
        model.zero_grad()
        losses[still] = memorize_loss(model, batch, others_still=still)
        losses[still].backward()
        gradient = model.backbone.get_input_embeddings().weight.grad
        moved = {code for code, row in model.vocabulary.ids.items() if gradient[row].abs().sum() > 0}
        assert moved == ({*asked, codes[0]} if still else set(codes))
        assert gradient[: model.vocabulary.n_words].abs().sum() > 0
    assert losses[True].item() == pytest.approx(losses[False].item(), abs=1e-6)


def test_missed_codes_are_asked_about_more_often_and_evenly(model):
    codes = list(model.vocabulary.ids)
    sampler = QuestionSampler(model.vocabulary, BOOK, codes)
    config = replace(SETTINGS, epochs=1, epochs_on_missed=5, hierarchy_share=0.0, batch_size=4)
    usual, more = QuestionBatches(sampler, config), QuestionBatches(sampler, config, codes[:2])
    counts = Counter(question for batch in more._batches for question in batch)
    told_apart = [question.code for question in sampler.backwards]
    for code in codes:
        times = 1 + 5 * (code in codes[:2])
        assert counts[Question(DEFINITION, code)] == times
        assert counts[Question(CODE, code, code)] == times * (code in told_apart)
    half = [question.code for batch in more._batches[: len(more) // 2] for question in batch].count(codes[0])
    assert len(more) > len(usual) and abs(half - counts[Question(DEFINITION, codes[0])]) <= 3


def test_what_was_missed_is_found_once_and_kept(model, tmp_path, monkeypatch):
    codes = list(model.vocabulary.ids)
    sampler = QuestionSampler(model.vocabulary, BOOK, codes)
    forgotten, asked_for = codes[4], [question.code for question in sampler.backwards]
    right = dict.fromkeys(asked_for, True) | dict.fromkeys(asked_for[1::2], False)
    monkeypatch.setattr(
        memorize, "definitions_exact", lambda _, asked, *more, **options: ([c != forgotten for c in asked], [])
    )
    monkeypatch.setattr(memorize, "codes_exact", lambda _, asked, *more: ([right[c] for c in asked], []))
    path, config = tmp_path / "missed.json", replace(SETTINGS, epochs_on_missed=1)
    expected = [code for code in codes if code == forgotten or not right.get(code, True)]
    assert memorize.kept_missed(model, sampler, config, path) == expected and 1 < len(expected) < len(codes)
    monkeypatch.setattr(memorize, "codes_exact", None)  # not looked for again
    assert memorize.kept_missed(model, sampler, config, path) == expected
    assert [file.name for file in tmp_path.iterdir()] == ["missed.json"]


def test_other_questions_can_be_tried_on_the_same_encoded_rows(model, tmp_path):
    codes = list(model.vocabulary.ids)
    sampler = QuestionSampler(model.vocabulary, BOOK, codes)
    config = replace(SETTINGS, encoded_epochs=1.0, save_every=1, epochs=2)
    memorize.learn_encoded(model, codes, sampler, config, BOOK, tmp_path / "first")
    table = model.backbone.get_input_embeddings().weight.detach().clone()
    other = tiny_model(codes, tiny_vocabulary(codes), seed=5)
    changed = replace(config, epochs=0.5, epochs_on_missed=3, rates_after_encoding=0.1, row_learning_rate=0.001)
    memorize.learn_encoded(other, codes, sampler, changed, BOOK, tmp_path / "first")
    assert torch.equal(other.backbone.get_input_embeddings().weight, table)
    with pytest.raises(InputError, match="other settings"):
        memorize.learn_encoded(other, codes, sampler, replace(config, learning_rate=0.1), BOOK, tmp_path / "first")


def test_stage_1_goes_on_from_an_earlier_one_with_what_it_missed(tmp_path, few_codes):
    codes = few_codes
    config = replace(
        SETTINGS, word_pieces=500, epochs=2, encoded_epochs=2.0, batch_size=16, save_every=0, hierarchy_share=0.0
    )
    memorize.run(config, tmp_path / "first")
    before, _ = load_checkpoint(tmp_path / "first")
    further = replace(
        config, encoded_epochs=0.0, epochs=1, epochs_on_missed=30, init_from=str(tmp_path / "first"), learning_rate=0.005,
        optimizer="muon", muon_learning_rate=0.01,
    )  # fmt: skip
    memorize.run(further, tmp_path / "second")
    after, manifest = load_checkpoint(tmp_path / "second")
    assert list(after.vocabulary.ids) == list(before.vocabulary.ids) == list(codes)
    known = [sum(codes_exact(model.eval(), codes, BOOK, 0)[0]) for model in (before, after)]
    assert known[1] > known[0]
    assert manifest.method["before"]["memorize"]["encoded_epochs"] == 2.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "logs", "second"]
    with pytest.raises(InputError, match="knows ICD9, and the configuration names ICD10"):
        memorize.run(replace(further, systems=("ICD10",)), tmp_path / "third")


@pytest.mark.parametrize("passes", [0.0, 1.0])
@pytest.mark.usefixtures("few_codes")
def test_a_folder_of_somebody_else_beside_the_run_stays(tmp_path, passes):
    note = tmp_path / "out-encoded" / "note.txt"
    note.parent.mkdir()
    note.write_text("mine", encoding="utf-8")
    config = replace(SETTINGS, word_pieces=500, epochs=1, encoded_epochs=passes, save_every=0, hierarchy_share=0.0)
    if passes:
        with pytest.raises(InputError, match="out-encoded is there already"):
            memorize.run(config, tmp_path / "out")
    else:
        memorize.run(config, tmp_path / "out")
    assert note.read_text(encoding="utf-8") == "mine"


def test_a_model_with_an_encoder_and_one_with_adapters_are_refused():
    with pytest.raises(InputError, match="encoded_epochs"):
        MemorizeConfig(backbone="x", tuning="lora", encoded_epochs=1.0)

    class Reads:
        encoder_decoder = True

    from training.memorize.encoded_rows import refuse

    with pytest.raises(InputError, match="decoder-only"):
        refuse(Reads(), MemorizeConfig(encoded_epochs=1.0))
    with pytest.raises(InputError, match="a step can't be divided: set accumulate to 1"):
        refuse(Reads(), MemorizeConfig(encoded_epochs=1.0, accumulate=2))
