"""Histories as tokens: the exact layout, the places that predict, and nothing of the future in the past."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mera_core.history.records import Patient, Visit
from mera_core.model.sequence import Encoder, SequenceConfig, profile_sentence, visit_sentence
from tests.tiny import CODES, icd9, tiny_engine, tiny_vocabulary

A, B, C, D = icd9("428.0", "427.31", "584.9", "486")
INTRO = "Diagnosis codes for the visit:"
VOCABULARY = tiny_vocabulary()
DETAILED = SequenceConfig(visit_details=("admission", "medications"), max_tokens=512)


def encode(patient: Patient, config: SequenceConfig = DETAILED, **kwargs):
    return Encoder(VOCABULARY, config).encode(patient, **kwargs)


def two_visits() -> Patient:
    first = Visit([A, B], age=69, details={"admission": "emergency", "discharge": "home"})
    return Patient([first, Visit([C], age=71)], sex="F", age=71, details={"ethnicity": "hispanic", "payer": "x"})


visit_lists = st.lists(
    st.builds(
        Visit,
        st.lists(st.sampled_from(CODES), min_size=1, max_size=4, unique=True),
        age=st.none() | st.integers(0, 99),
        details=st.fixed_dictionaries({"admission": st.sampled_from(["", "urgent", "elective"])}),
    ),
    min_size=1,
    max_size=5,
)
patients = st.builds(Patient, visit_lists, sex=st.sampled_from("FMU"), age=st.none() | st.integers(0, 99))


# --- layout


def test_the_layout_token_for_token() -> None:
    words, ids, eov = VOCABULARY.words, VOCABULARY.ids, VOCABULARY.eov
    head = [VOCABULARY.bos, *words("Patient: female, ethnicity hispanic.")]
    first, second = words(f"age 60s admission emergency {INTRO}"), words(f"age 70s {INTRO}")
    encoded = encode(two_visits())
    assert encoded.input_ids == [*head, *first, ids[A], ids[B], eov, *second, ids[C], eov]
    at = len(head) + len(first)
    assert encoded.start == len(head) - 1
    assert encoded.codes == [[at, at + 1], [len(encoded.input_ids) - 2]]
    assert encoded.ends == [at + 2, len(encoded.input_ids) - 1]
    assert encoded.order == [[A, B], [C]] and encoded.first_visit == 0
    assert [note.message for note in encoded.notes] == ["This model does not read 1 detail of the visits (discharge)."]


def test_without_a_profile_there_are_only_introductions_and_codes() -> None:
    encoded = encode(two_visits(), SequenceConfig(profile=False, visit_details=("admission",)))
    intro = VOCABULARY.words(INTRO)
    expected = [VOCABULARY.bos, *intro, *map(VOCABULARY.ids.get, (A, B)), VOCABULARY.eov]
    assert encoded.input_ids == [*expected, *intro, VOCABULARY.ids[C], VOCABULARY.eov]


@settings(max_examples=30, deadline=None)
@given(patients)
def test_eov_stands_at_every_end_and_nowhere_else(patient: Patient) -> None:
    encoded = encode(patient)
    assert [i for i, id_ in enumerate(encoded.input_ids) if id_ == VOCABULARY.eov] == encoded.ends
    assert len(encoded.ends) == len(patient.visits)
    for visit, positions, end in zip(patient.visits, encoded.codes, encoded.ends, strict=True):
        assert tuple(VOCABULARY.code_at[encoded.input_ids[i]] for i in positions) == visit.codes
        assert positions == list(range(end - len(visit.codes), end))


@pytest.mark.parametrize(
    ("patient", "sentence"),
    [
        (Patient(sex="M"), "Patient: male."),
        (Patient(sex="U"), "Patient: unknown."),
        (Patient(sex="U", details={"ethnicity": "asian"}), "Patient: ethnicity asian."),
        (Patient(sex="F", age=80), "Patient: female."),  # age is a visit's, not the person's
    ],
)
def test_profile_sentence(patient: Patient, sentence: str) -> None:
    assert profile_sentence(patient, DETAILED) == sentence


@pytest.mark.parametrize(("age", "decade"), [(0, "0s"), (9.9, "0s"), (10, "10s"), (69.99, "60s"), (100, "100s")])
def test_an_age_is_told_by_its_decade(age: float, decade: str) -> None:
    assert visit_sentence(Visit([A], age=age), DETAILED) == f"age {decade} {INTRO}"


@pytest.mark.parametrize(
    ("typed", "told"),
    [("7", "7"), ("14", "10"), ("15", "20"), ("96", "100"), ("104", "100"), ("1500", "2000"), ("1a", "1a")],
)
def test_numbers_from_ten_are_told_to_one_figure(typed: str, told: str) -> None:
    visit = Visit([A], details={"medications": typed})
    assert visit_sentence(visit, DETAILED) == f"medications {told} {INTRO}"


def test_profile_words_in_any_script_survive() -> None:
    patient = Patient([Visit([A])], sex="F", details={"ethnicity": "naïve 漢字 🙂 Ω"})
    encoded = encode(patient)
    head = encoded.input_ids[: encoded.start + 1]
    assert VOCABULARY.text(head) == "Patient: female, ethnicity naïve 漢字 🙂 Ω."


def test_remembered_phrases_change_nothing() -> None:
    remembering = Encoder(VOCABULARY, DETAILED, remember=True)
    for _ in range(2):
        assert remembering.encode(two_visits()).input_ids == encode(two_visits()).input_ids


def test_words_of_a_patients_details_are_remembered_in_training_only() -> None:
    patient = Patient([Visit([A], details={"medications": "secret"})], sex="F", details={"ethnicity": "hidden"})
    for remember in (False, True):
        encoder = Encoder(VOCABULARY, DETAILED, remember=remember)
        encoder.encode(patient)
        encoder.encode(Patient([Visit([A])], sex="M"))
        held = repr(vars(encoder))
        assert ("secret" in held, "hidden" in held, "Patient: male." in held) == (remember, remember, True)


# --- no future in the past


@settings(max_examples=30, deadline=None)
@given(patients.filter(lambda p: len(p.visits) > 1), visit_lists, st.none() | st.integers(0, 99))
def test_tokens_up_to_an_end_do_not_depend_on_what_follows(patient: Patient, others: tuple, age: int | None) -> None:
    encoded = encode(patient)
    for t in range(len(patient.visits) - 1):
        changed = encode(replace(patient, visits=(*patient.visits[: t + 1], *others), age=age))
        assert changed.ends[: t + 1] == encoded.ends[: t + 1]
        assert changed.input_ids[: encoded.ends[t] + 1] == encoded.input_ids[: encoded.ends[t] + 1]


def test_the_age_at_the_last_visit_is_not_told_before_it() -> None:
    visits = [Visit([A]), Visit([B])]
    young, old = (encode(Patient(visits, age=age)) for age in (45, 85))
    end = young.ends[0]
    assert young.input_ids[: end + 1] == old.input_ids[: end + 1]
    assert young.input_ids != old.input_ids  # and at the last visit it is told
    assert young.input_ids[end + 1 :][:-2] == VOCABULARY.words(f"age 40s {INTRO}")


def test_scores_at_an_end_do_not_depend_on_what_follows() -> None:
    engine = tiny_engine()
    visits = (Visit([A, B], age=60), Visit([C], age=61), Visit([D], age=62))
    futures = [
        (),
        (Visit([A, C, D], age=90, details={"admission": "urgent"}),),
        (Visit([B]), Visit([C, A], age=33)),
    ]
    encoded = [encode(Patient((*visits, *future), sex="M", age=60 + 9 * i)) for i, future in enumerate(futures)]
    width = max(len(one.input_ids) for one in encoded)
    reference = None
    for one in encoded:
        ids = torch.full((1, width), VOCABULARY.pad)  # one shape, so that sums run in one order
        ids[0, : len(one.input_ids)] = torch.tensor(one.input_ids)
        with torch.inference_mode():
            scores, eov = engine.model.scores(engine.model.hidden(ids)[0, one.ends[:3]])
        if reference is None:
            reference = scores, eov
        assert torch.equal(scores, reference[0]) and torch.equal(eov, reference[1])
    assert not torch.equal(scores[0], scores[1])  # while the past does matter


# --- order perturbation


@settings(max_examples=30, deadline=None)
@given(patients, st.integers(0, 10_000))
def test_a_new_order_moves_codes_within_their_visit_only(patient: Patient, seed: int) -> None:
    plain, shuffled = encode(patient), encode(patient, shuffle=random.Random(seed))
    assert shuffled.ends == plain.ends and shuffled.codes == plain.codes and shuffled.start == plain.start
    inside = {i for positions in plain.codes for i in positions}
    for i, (one, other) in enumerate(zip(plain.input_ids, shuffled.input_ids, strict=True)):
        assert one == other or i in inside
    for visit, order, positions in zip(patient.visits, shuffled.order, shuffled.codes, strict=True):
        assert sorted(order) == sorted(visit.codes)
        assert [VOCABULARY.code_at[shuffled.input_ids[i]] for i in positions] == order


def test_orders_differ_between_seeds_and_repeat_for_one() -> None:
    patient = Patient([Visit(CODES[:5])])
    orders = {tuple(encode(patient, shuffle=random.Random(seed)).order[0]) for seed in range(40)}
    assert len(orders) > 25
    again = [encode(patient, shuffle=random.Random(3)).input_ids for _ in range(2)]
    assert again[0] == again[1]


def test_drop_leaves_out_codes_and_words_at_about_its_rate() -> None:
    patient = Patient([Visit(CODES, age=70)])
    rng, codes, told = random.Random(1), 0, 0
    for _ in range(400):
        encoded = encode(patient, shuffle=rng, drop=0.25)
        codes += len(encoded.order[0])
        told += encoded.codes[0][0] - encoded.start - 1 > len(VOCABULARY.words(INTRO)) if encoded.order[0] else 0
        assert set(encoded.order[0]) <= set(CODES) and encoded.input_ids[-1] == VOCABULARY.eov
    assert 0.72 < codes / 4000 < 0.78 and 0.68 < told / 400 < 0.82


def test_without_a_draw_nothing_is_dropped() -> None:
    assert encode(two_visits(), drop=0.9).input_ids == encode(two_visits()).input_ids


# --- truncation


def long_history(visits: int = 10) -> Patient:
    return Patient([Visit([A, B], age=60 + n) for n in range(visits)], sex="F")


def test_a_history_that_just_fits_is_whole_and_one_token_less_costs_the_oldest_visit() -> None:
    whole = encode(long_history(4))
    size = len(whole.input_ids)
    fits = encode(long_history(4), replace(DETAILED, max_tokens=size))
    assert fits.input_ids == whole.input_ids and fits.notes == [] and fits.start is not None
    cut = encode(long_history(4), replace(DETAILED, max_tokens=size - 1))
    assert cut.first_visit == 1 and cut.start is None and len(cut.ends) == 3


def test_the_newest_visits_are_kept_after_the_profile_and_a_note_counts_the_others() -> None:
    whole, cut = encode(long_history()), encode(long_history(), replace(DETAILED, max_tokens=100))
    assert 0 < cut.first_visit < 9 and len(cut.input_ids) <= 100
    head = whole.input_ids[: whole.start + 1]
    tail = whole.input_ids[whole.ends[cut.first_visit - 1] + 1 :]
    assert cut.input_ids == head + tail
    assert len(cut.input_ids) + len(tail) // len(cut.ends) > 100  # one more visit would not have fitted
    (note,) = cut.notes
    assert note.kind == "truncated" and f"oldest {cut.first_visit} of 10 visits were left out" in note.message


def test_a_single_giant_visit_gives_up_its_words_and_then_its_last_codes() -> None:
    encoded = encode(Patient([Visit(CODES * 2)]), SequenceConfig(max_tokens=16, profile=False))
    assert len(encoded.input_ids) == 16 and encoded.input_ids[-1] == VOCABULARY.eov
    assert encoded.order == [[*CODES, *CODES[:4]]] and encoded.ends == [15]
    (note,) = encoded.notes
    assert note.kind == "truncated" and note.visit is None
    assert note.message.startswith("The words on visits are more than this model reads beside the codes")
    assert "The last visit holds 20 codes" in note.message and "last 6 were left out" in note.message


def test_a_giant_newest_visit_pushes_out_all_older_ones() -> None:
    config = SequenceConfig(max_tokens=16, profile=False)
    encoded = encode(Patient([Visit([A]), Visit([B]), Visit(CODES)]), config)
    assert encoded.first_visit == 2 and encoded.order == [list(CODES)] and len(encoded.input_ids) == 16
    (note,) = encoded.notes
    assert "oldest 2 of 3" in note.message


def test_long_words_are_shortened_before_a_code_or_a_visit_is_left_out_and_the_note_blames_them() -> None:
    long = Patient([Visit([A], age=60), Visit([B, C], age=70)], sex="F", details={"ethnicity": "basque " * 200})
    encoded = encode(long)
    assert encoded.start == 64 and encoded.order == [[A], [B, C]]  # an eighth of 512 after BOS, not all that is free
    assert VOCABULARY.text(encoded.input_ids[: encoded.start + 1]).startswith("Patient: female, ethnicity basque")
    (note,) = encoded.notes
    assert note.kind == "truncated"
    assert note.message.startswith("The words on the patient are more than this model reads beside the codes")


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=400),
    st.text(max_size=400),
    st.lists(st.lists(st.sampled_from(CODES), min_size=1, max_size=40), min_size=1, max_size=9),
    st.integers(16, 90),
)
def test_no_text_pushes_a_code_out_of_the_newest_visit(on_patient, on_visit, visits, most) -> None:
    visits = [Visit(codes, age=70, details={"medications": on_visit}) for codes in visits]
    encoded = encode(Patient(visits, details={"ethnicity": on_patient}), replace(DETAILED, max_tokens=most))
    assert len(encoded.input_ids) <= most
    assert encoded.order[-1] == list(visits[-1].codes)[: most - 2]
    assert [VOCABULARY.code_at[encoded.input_ids[i]] for i in encoded.codes[-1]] == encoded.order[-1]
    assert sum(id_ in VOCABULARY.code_at for id_ in encoded.input_ids) == sum(map(len, encoded.order))


def test_a_sequence_of_fewer_than_16_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="max_tokens must be 16 or more"):
        SequenceConfig(max_tokens=15)


@pytest.mark.parametrize(
    "values",
    [{"visit_intro": {}}, {"profile": 1}, {"visit_details": "age"}, {"patient_details": [1]}, {"max_tokens": "64"}],
)
def test_settings_of_another_kind_are_refused_and_do_not_wait_for_the_first_history(values) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        SequenceConfig(**values)


# --- details as tokens


FACTS = ("age: 60s", "discharge: home", "drugs: metformin steady", "stay: 4", "stay: 11")
WITH_DETAILS = tiny_vocabulary().with_details(FACTS)
READ = SequenceConfig(detail_tokens=("age", "discharge", "stay", "drugs"), visit_intro="")


def told(visit: Visit, config: SequenceConfig = READ, **drawn) -> list[str]:
    """The tokens of a visit's details, and the notes."""
    encoded = Encoder(WITH_DETAILS, config).encode(Patient([visit]), **drawn)
    names = {id_: fact for fact, id_ in WITH_DETAILS.details.items()}
    return [names[id_] for id_ in encoded.input_ids if id_ in names]


def test_each_fact_of_a_visit_is_one_token_before_its_codes() -> None:
    visit = Visit([A], age=64.0, details={"discharge": "Home", "stay": "5", "drugs": "metformin steady, glipizide up"})
    assert told(visit) == ["age: 60s", "discharge: home", "stay: 4", "drugs: metformin steady"]
    encoded = Encoder(WITH_DETAILS, READ).encode(Patient([visit]))
    assert len(encoded.input_ids) == encoded.start + 1 + 4 + 1 + 1  # no other words of the visit
    assert [note.message for note in encoded.notes] == ["This model does not read 1 detail of the visits (drugs)."]


def test_numbers_beyond_the_bins_of_training_fall_into_the_nearest_lower_one_and_nothing_is_untold() -> None:
    assert told(Visit([A], details={"stay": "90"})) == ["stay: 11"]
    assert told(Visit([A], details={"stay": "0"})) == told(Visit([A], details={"stay": "2"})) == []  # no token of 2
    assert told(Visit([A], details={"discharge": "on the moon", "service": "MED"})) == []


def test_a_visit_has_at_most_so_many_details() -> None:
    visit = Visit([A], age=64.0, details={"discharge": "home", "stay": "5", "drugs": "metformin steady"})
    most = SequenceConfig(detail_tokens=READ.detail_tokens, most_details=2, visit_intro="")
    assert told(visit, most) == ["age: 60s", "discharge: home"]


def test_details_left_out_at_random_leave_age_and_codes() -> None:
    visit = Visit([A], age=64.0, details={"discharge": "home"})
    assert told(visit, shuffle=random.Random(0), drop_details=1.0) == ["age: 60s"]
    assert told(visit, shuffle=random.Random(0), drop_details=1e-9) == ["age: 60s", "discharge: home"]


def test_text_that_spells_a_detail_is_words() -> None:
    assert not {*WITH_DETAILS.words("<visit_detail discharge: home>")} & {*WITH_DETAILS.details.values()}
    assert WITH_DETAILS.rows == len(WITH_DETAILS) + len(FACTS)
    assert len(WITH_DETAILS) == len(tiny_vocabulary())
