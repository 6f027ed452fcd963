"""From a history to a ranking and from a question to an answer, through a folder that was trained."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from mera_core.checkpoint.folder import folder_hash, read_manifest, save_checkpoint
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code, Ontology
from mera_core.model import forward
from mera_core.model.recurrence import seen_features
from mera_core.ranking.calibration import Calibration
from mera_core.ranking.ranking import for_weighted_f1
from tests.tiny import CODES, icd9, tiny_engine, tiny_manifest, tiny_model, tiny_vocabulary

HEART = [Visit(["428.0", "427.31", "401.9"], age=70), Visit(["428.0", "584.9"], age=71)]


@pytest.fixture(scope="module")
def engine(tiny_checkpoint) -> Engine:
    return Engine.load(tiny_checkpoint)


def some_patients(count: int = 40) -> list[Patient]:
    """Histories of one to six visits, in mixed lengths."""
    draw = np.random.default_rng(5)
    return [
        Patient(
            [
                Visit([str(CODES[i].code) for i in draw.permutation(10)[: draw.integers(1, 5)]], age=50 + n)
                for n in range(size)
            ],
            sex="FMU"[size % 3],
            age=50 + size,
        )
        for size in draw.integers(1, 7, count)
    ]


# --- rank


def test_what_tends_to_follow_is_ranked_before_what_never_does(engine) -> None:
    ranking = engine.rank(Patient(HEART, sex="F", age=71))
    places = {code.code: place for place, code in enumerate(ranking.codes)}
    follows = [places[code] for code in ("428.23", "585.9", "584.9")]
    never = [places[code] for code in ("571.2", "572.2", "518.84", "820.21")]
    assert np.mean(follows) < np.mean(never) - 2


def test_the_whole_label_space_once_with_falling_scores_and_shares_that_sum_to_one(engine) -> None:
    ranking = engine.rank(Patient(HEART))
    assert sorted(ranking.codes) == list(engine.label_space) and len(ranking.codes) > 25
    assert (np.diff(ranking.scores) <= 0).all() and np.isfinite(ranking.scores).all()
    assert ranking.share.sum() == pytest.approx(1, abs=1e-9) and (ranking.share > 0).all()
    assert ranking.predicted == (ranking.scores > ranking.cut).sum()
    assert (np.diff(ranking.probability) < 0).all() and 0 <= ranking.probability[-1] <= ranking.probability[0] <= 1
    assert ranking.to_frame().probability.tolist() == ranking.probability.tolist()


def test_without_a_calibration_there_is_no_probability() -> None:
    ranking = tiny_engine().rank(Patient(HEART))
    assert ranking.probability is None and "probability" not in ranking.to_frame()


def test_recurrent_codes_are_those_of_the_history(engine) -> None:
    ranking = engine.rank(Patient(HEART))
    held = {code.code for code, recurrent in zip(ranking.codes, ranking.recurrent, strict=True) if recurrent}
    assert held == {"428.0", "427.31", "401.9", "584.9"}


def test_the_arithmetic_from_tokens_to_ranking() -> None:
    platt = Calibration("platt", 0.8, -0.2), Calibration("platt", 0.6, 0.3)  # new codes, recorded ones
    calibration = {"new": platt[0].to_dict(), "recorded": platt[1].to_dict(), "cut": -1.0}
    engine = tiny_engine(calibration=calibration)
    engine.model.head.cut_offset += torch.linspace(-2, 2, 10)
    patient = Patient([Visit(CODES[:3], age=70), Visit(CODES[1:2], age=71)], sex="F")
    index = {code: i for i, code in enumerate(CODES)}
    ids = torch.tensor([engine.encode(patient).input_ids])
    seen = torch.tensor([[0.0, *row] for row in seen_features(patient.visits, index)])
    with torch.inference_mode():
        scores, eov = engine.model.scores(engine.model.hidden(ids)[:, -1], seen)
    held = np.isin(np.arange(10), [0, 1, 2])
    margin = (scores - eov[:, None]).numpy()[0].astype(float)
    log_odds = np.where(held, 0.6 * margin + 0.3, 0.8 * margin - 0.2)
    ranking = engine.rank(patient)
    order = [index[code] for code in ranking.codes]
    assert order == sorted(range(10), key=lambda label: -log_odds[label])
    assert ranking.scores == pytest.approx((log_odds + 1.0 + float(eov))[order], abs=1e-4)
    assert ranking.probability == pytest.approx((1 / (1 + np.exp(-log_odds)))[order], abs=1e-5)
    assert ranking.cut == pytest.approx(float(eov), abs=1e-4) and ranking.recurrent.tolist() == held[order].tolist()
    assert ranking.share == pytest.approx(scores.softmax(1).numpy()[0][order], abs=1e-5)
    assert ranking.predicted == int((log_odds > -1.0).sum())
    # the list made for weighted F1: other places, the same probabilities
    ranked = for_weighted_f1(scores.numpy(), eov.numpy(), engine.cut_offset)[0]
    for_f1 = engine.rank(patient, order="f1")
    order = [index[code] for code in for_f1.codes]
    assert for_f1.scores == pytest.approx(ranked[order], abs=1e-4) and for_f1.order == "f1"
    assert for_f1.probability == pytest.approx((1 / (1 + np.exp(-log_odds)))[order], abs=1e-5)
    assert for_f1.predicted == int((scores - eov[:, None] > engine.model.head.cut_offset).sum())


def test_an_order_that_does_not_exist_is_refused(engine) -> None:
    with pytest.raises(InputError, match='no order "share"; it can be probability or f1'):
        engine.rank(Patient(HEART), order="share")


def test_a_checkpoint_with_one_curve_is_cut_at_its_best_threshold_over_eov() -> None:
    """As checkpoints were written before there was a curve for new codes and one for recorded ones."""
    curve = Calibration("platt", 0.8, -0.2, patients=7).to_dict()
    cut = {"best_threshold": {"over_eov": {"threshold": -1.5, "weighted_f1": 0.26}}}
    patient = Patient([Visit(CODES[:3])])
    older = tiny_engine(calibration=curve, method={"cut": cut})
    assert older.calibration.new == older.calibration.recorded and older.calibration.cut == pytest.approx(-1.4)
    plain = tiny_engine().rank(patient)  # not calibrated: by the margin over EOV, cut at EOV
    assert older.rank(patient).codes == plain.codes
    assert older.rank(patient).predicted == (plain.scores - plain.cut > -1.5).sum()
    assert older.rank(patient).probability == pytest.approx(
        1 / (1 + np.exp(-0.8 * (plain.scores - plain.cut) + 0.2)), abs=1e-6
    )
    for damaged in ({}, {"cut": {}}, {"cut": {"best_threshold": {"over_eov": 3}}}):
        assert tiny_engine(calibration=curve, method=damaged).calibration.cut == 0


def test_many_are_ranked_as_each_alone_and_in_order(engine) -> None:
    patients = some_patients()
    together = engine.rank_many(patients, batch_size=7)
    assert len(together) == 40
    for patient, many in zip(patients, together, strict=True):
        one = engine.rank(patient)
        frames = [ranking.to_frame().sort_values(["system", "code"]).score.to_numpy() for ranking in (one, many)]
        assert frames[0] == pytest.approx(frames[1], abs=1e-4)
        assert one.cut == pytest.approx(many.cut, abs=1e-4)
        assert np.array_equal(np.sort(one.recurrent), np.sort(many.recurrent))


def test_eight_threads_get_the_answers_that_one_gets(engine) -> None:
    patients = some_patients(32)
    alone = [engine.rank(patient) for patient in patients]
    recalled = engine.recall(definition="Pneumonia").alternatives
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(engine.recall, definition="Pneumonia") for _ in range(8)]
        together = list(pool.map(engine.rank, patients))
    for one, other in zip(alone, together, strict=True):
        assert one.codes == other.codes and np.array_equal(one.scores, other.scores)
    assert all(answer.result().alternatives == recalled for answer in asked)


def test_the_history_changes_the_ranking_and_its_order_of_visits_does(engine) -> None:
    forth, back = (engine.rank(Patient(visits)) for visits in (HEART, HEART[::-1]))
    assert forth.codes != back.codes or not np.allclose(forth.scores, back.scores)


# --- notes


def test_notes_for_what_was_rolled_up_mapped_unread_and_doubled(engine) -> None:
    visits = [
        Visit(["428.0", "427.31", "427.31", "99Z.9"]),  # doubled, in no book
        Visit([Code("ICD10", "I50.9"), "585.9"]),  # mapped
        Visit(["042"]),  # nothing near it was ever seen
    ]
    ranking = engine.rank(Patient(visits))
    kinds = [(note.kind, note.visit, note.code) for note in ranking.notes]
    assert kinds == [
        ("duplicate", 0, "427.31"),
        ("unread", 0, "99Z.9"),
        ("mapped", 1, "ICD10:I50.9"),
        ("unread", 2, "ICD9:042"),
        ("unread", 2, ""),
    ]
    held = {code.code for code, recurrent in zip(ranking.codes, ranking.recurrent, strict=True) if recurrent}
    assert held == {"428.0", "427.31", "585.9"}
    assert [note["kind"] for note in ranking.to_json()["notes"]] == [kind for kind, _, _ in kinds]


def test_a_finer_code_than_was_seen_is_rolled_up() -> None:
    labels = tuple(sorted(icd9("428", "486")))
    engine = tiny_engine(tiny_model(labels, tiny_vocabulary(labels)))
    ranking = engine.rank(Patient([Visit(["428.23"])]))
    assert [(note.kind, note.code) for note in ranking.notes] == [("rolled_up", "ICD9:428.23")]
    plain = engine.rank(Patient([Visit(["428"])]))
    assert np.array_equal(plain.scores, ranking.scores) and plain.notes == ()


def test_a_long_history_is_noted_as_cut(engine) -> None:
    ranking = engine.rank(Patient(HEART * 60))
    assert [note.kind for note in ranking.notes] == ["truncated"]


def test_text_that_spells_a_token_ranks_as_other_words_do_not_as_the_token(engine) -> None:
    spelled, encoded = "ICD9_428.0 <end_of_visit>", engine.encode(Patient([Visit([Code("ICD9", "486")])]))
    told = engine.encode(Patient([Visit([Code("ICD9", "486")])], details={"ethnicity": spelled}))
    ids = engine.model.vocabulary.code_at.keys() | {engine.model.vocabulary.eov}
    assert [i for i in told.input_ids if i in ids] == [i for i in encoded.input_ids if i in ids]


def test_the_scope_of_a_checkpoint_that_ranks_nothing_can_follow_the_word_ranks() -> None:
    alone = Engine(tiny_model(labels=()), tiny_manifest(()), Ontology.load())
    assert alone.scope == "no codes: this checkpoint has memorized ICD codes only"


@pytest.mark.parametrize("visits", [[Visit([])], [Visit(["99Z.9"]), Visit([])], [Visit(["042"])]])
def test_a_history_with_nothing_readable_is_refused_and_says_why(engine, visits) -> None:
    with pytest.raises(InputError, match=r"holds no code that this model can read: .*Visit 1") as caught:
        engine.rank(Patient(visits))
    if visits[0].codes:
        assert visits[0].codes[0] in str(caught.value)


# --- recall


def test_a_code_is_recalled_with_its_truth(engine) -> None:
    recall = engine.recall(code="428.0")
    assert recall.question == "Define 428.0:"
    assert recall.truth == "Congestive heart failure, unspecified"
    assert recall.exact == (recall.answer == recall.truth)
    assert recall.to_json()["exact"] == recall.exact


def test_a_definition_is_recalled_with_five_alternatives_best_first(engine) -> None:
    recall = engine.recall(definition="  congestive heart   FAILURE, unspecified ")
    assert recall.truth == "428.0" and len(recall.alternatives) == 5
    shares = [share for _, _, share in recall.alternatives]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) < 1
    assert recall.answer == recall.alternatives[0][0].code
    assert recall.exact == (recall.answer == "428.0")
    for code, definition, _ in recall.alternatives:
        assert definition == engine.ontology.definition(code)


def test_a_definition_in_no_book_has_no_truth(engine) -> None:
    recall = engine.recall(definition="a plain cold")
    assert recall.truth == "" and recall.exact is None
    keys = ["question", "answer", "truth", "exact", "alternatives", "notice"]
    assert list(recall.to_json()) == keys
    assert list(recall.to_json()["alternatives"][0]) == ["system", "code", "definition", "share"]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({}, "either a code or a definition"),
        ({"code": "428.0", "definition": "x"}, "either a code or a definition"),
        ({"definition": "  "}, "is empty"),
        ({"definition": "x" * 501}, "501 characters long"),
        ({"code": "99Z.9"}, "99Z.9"),
        ({"code": Code("ICD10", "I50.9")}, "memorized ICD9 only"),
        ({"code": "I50.9", "system": "ICD10"}, "memorized ICD9 only"),
        ({"code": "I10"}, "ICD10:I10 can't be recalled"),  # and never read as a slip of the pen for ICD9:110
    ],
)
def test_questions_that_make_no_sense(engine, question, message) -> None:
    with pytest.raises(InputError, match=message):
        engine.recall(**question)


def test_what_stands_above_a_code_is_recalled_level_by_level(engine) -> None:
    answers = engine.recall_ancestors("428.0")
    assert [answer.truth for answer in answers] == ["CH07", "420-429", "428"]
    assert [answer.question for answer in answers] == ["chapter of 428.0:", "block of 428.0:", "category of 428.0:"]
    for answer in answers:
        assert answer.answer == answer.alternatives[0][0].code
        assert answer.exact == (answer.answer == answer.truth)
        assert len(answer.alternatives) == 5
    assert engine.recall_ancestors("CH07", system="ICD9") == []
    with pytest.raises(InputError, match="memorized ICD9 only"):
        engine.recall_ancestors(Code("ICD10", "I50.9"))


def test_definitions_of_many_codes_at_once_are_those_of_each_alone(engine) -> None:
    codes = list(icd9("428.0", "486", "250.00"))
    assert engine.recall_definitions(codes) == [engine.recall(code=code).answer for code in codes]
    with pytest.raises(InputError, match="memorized ICD9 only"):
        engine.recall_definitions([Code("ICD10", "I50.9")])


# --- loading


def test_the_scope_names_each_book_once() -> None:
    assert tiny_engine().scope == "10 codes of ICD-9-CM: 9 full codes, 1 category"
    labels = icd9("250", "428", "486", "250.01")
    vocabulary = tiny_vocabulary(labels)
    assert tiny_engine(tiny_model(labels, vocabulary)).scope == "4 codes of ICD-9-CM: 3 categories, 1 full code"


def test_the_name_holds_the_hash_of_the_content(engine, tiny_checkpoint) -> None:
    assert engine.name == f"tiny {folder_hash(read_manifest(tiny_checkpoint))}"
    assert engine.rank(Patient(HEART)).checkpoint == engine.name
    assert engine.manifest["stage"] == "rank" and set(engine.input_codes) <= set(engine.model.vocabulary.ids)


def test_a_stage_1_folder_recalls_but_does_not_rank(tiny_stage1) -> None:
    engine = Engine.load(tiny_stage1)
    assert engine.label_space == () and engine.recall(definition="Pneumonia, organism unspecified").truth == "486"
    with pytest.raises(InputError, match="was not trained to rank"):
        engine.rank(Patient(HEART))


@pytest.mark.parametrize(("quantize", "kind"), [("nf4", "Linear4bit"), ("int8", "Linear8bitLt"), ("bf16", "Linear")])
def test_other_precisions_rank_on_a_cpu_close_to_full_ones(tmp_path, quantize, kind) -> None:
    model = tiny_model(hidden_size=64)
    with torch.no_grad():  # weights of a usual size: large ones make attention jump at the least rounding
        for parameter in model.backbone.parameters():
            parameter.mul_(0.2 if parameter.ndim == 2 else 1)
    save_checkpoint(model, tiny_manifest(), tmp_path / "wide")
    full, small = Engine.load(tmp_path / "wide"), Engine.load(tmp_path / "wide", quantize=quantize)
    assert kind in {type(module).__name__ for module in small.model.backbone.modules()}
    patients = [Patient([Visit(CODES[n : n + 3], age=60)]) for n in range(6)]
    of = [
        [r.to_frame().sort_values("code").score.to_numpy() for r in engine.rank_many(patients)]
        for engine in (full, small)
    ]
    away = np.abs(np.array(of[0]) - np.array(of[1]))
    assert away.max() > 0 and np.corrcoef(np.ravel(of[0]), np.ravel(of[1]))[0, 1] > 0.98


def test_a_precision_that_does_not_exist_is_refused(tiny_checkpoint) -> None:
    with pytest.raises(InputError, match=r'quantize is "int3"; it can be None, "nf4", "int8", "bf16"'):
        Engine.load(tiny_checkpoint, quantize="int3")


# --- serving


def test_variants_of_a_history_score_as_they_do_alone(engine) -> None:
    """A long history, it without each of its codes, and with each other code added: what they share is computed once."""
    draw = np.random.default_rng(3)
    codes = [code.code for code in engine.input_codes if code.system == "ICD9"]
    visits = [Visit([codes[i] for i in draw.permutation(len(codes))[:4]], age=60 + n) for n in range(8)]
    made = [visits]
    for number, visit in enumerate(visits):
        for place in range(4):
            less = Visit(visit.codes[:place] + visit.codes[place + 1 :], age=visit.age)
            made.append([*visits[:number], less, *visits[number + 1 :]])
    made += [[*visits[:-1], Visit([*visits[-1].codes, code], age=visits[-1].age)] for code in codes[:20]]
    patients = [Patient(visits, sex="F") for visits in made]
    read = [(history, engine.encode(history)) for history, _ in map(engine.read_history, patients)]
    sequences = [encoded.input_ids for _, encoded in read]
    assert forward.pays(sequences, forward.beginnings(sequences))
    scores, eov = engine.scores(read)
    for number in range(len(read)):
        one, one_eov = engine.scores([read[number]])
        np.testing.assert_allclose(scores[number], one[0], rtol=0, atol=1e-5)
        assert abs(eov[number] - one_eov[0]) < 1e-5


def test_warming_up_runs_the_model_and_changes_nothing(engine, tiny_stage1) -> None:
    before = engine.rank(Patient(HEART)).scores
    assert 0 < engine.warm_up() < 60
    assert np.array_equal(engine.rank(Patient(HEART)).scores, before)
    assert Engine.load(tiny_stage1).warm_up() >= 0  # nothing to rank, nothing to warm


def test_a_patient_costs_one_forward_pass(engine, monkeypatch) -> None:
    passes = []
    run = engine.model.backbone.base_model.forward
    monkeypatch.setattr(
        engine.model.backbone.base_model, "forward", lambda *args, **kwargs: passes.append(1) or run(*args, **kwargs)
    )
    engine.rank(Patient(HEART))
    assert passes == [1]


def test_a_model_without_a_trained_threshold_is_cut_by_its_share() -> None:
    model = tiny_model()
    plain = tiny_engine(model, method={"rank": {"threshold": "independent"}})
    shared = tiny_engine(model, method={"rank": {"threshold": "none"}})
    history = Patient([Visit(["428.0", "427.31"])])
    ranking, other = plain.rank(history), shared.rank(history)
    assert plain.threshold == "independent" and tiny_engine(model).threshold == "independent"
    assert other.cut == pytest.approx(np.logaddexp.reduce(_scores(shared, history)), abs=1e-4) != ranking.cut
    assert np.array_equal(_scores(shared, history), _scores(plain, history))


def _scores(engine, history) -> np.ndarray:
    read, _ = engine.read_history(history)
    return engine.scores([(read, engine.encode(read))])[0][0].astype(np.float64)
