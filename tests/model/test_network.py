"""The network's arithmetic by hand: how code rows start, what is scored, and the score head."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mera_core.common.errors import InputError
from mera_core.model.network import FEW_STATES, SEEN_FEATURES, MeraModel, ScoreHead, common_direction, start_code_rows
from tests.tiny import CODES, icd9, tiny_model, tiny_vocabulary

DEFINITIONS = dict(zip(CODES, ["acute heart failure", "pneumonia", "chronic pneumonia"], strict=False))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("decay", [0.5, 0.0])
def test_code_rows_start_at_the_weighted_sum_of_their_definitions_words(tied: bool, decay: float) -> None:
    model = tiny_model(tied=tied)
    vocabulary, backbone = model.vocabulary, model.backbone
    tables = [backbone.get_input_embeddings().weight, backbone.get_output_embeddings().weight]
    before = [table.detach().clone().numpy() for table in tables]
    start_code_rows(backbone, vocabulary, DEFINITIONS, decay)
    assert (tables[0] is tables[1]) == tied
    for table, old in zip(tables, before, strict=True):
        new = table.detach().numpy()
        words = old[: vocabulary.n_words].astype(np.float64)
        length = np.linalg.norm(words, axis=1).mean()
        for code, text in DEFINITIONS.items():
            row = sum(words[id_] * (1 + place) ** -decay for place, id_ in enumerate(vocabulary.words(text)))
            expected = row / np.linalg.norm(row) * length
            assert new[vocabulary.ids[code]] == pytest.approx(expected, abs=1e-5)
        assert new[vocabulary.eov] == pytest.approx(words.mean(0), abs=1e-6)
        assert np.array_equal(new[: vocabulary.n_words], old[: vocabulary.n_words])  # words stay
        other = vocabulary.ids[CODES[5]]
        assert np.array_equal(new[other], old[other])  # so do codes without a definition
    if not tied:
        assert not np.allclose(tables[0][vocabulary.eov].detach(), tables[1][vocabulary.eov].detach())


def test_scores_are_state_times_row_plus_bias_and_eov_has_its_own() -> None:
    model = tiny_model()
    hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        scores, eov = model.scores(hidden)
    weight = model.backbone.get_output_embeddings().weight.detach()
    rows = weight[[model.vocabulary.ids[code] for code in CODES]]
    assert torch.allclose(scores, hidden @ rows.T + model.head.bias, atol=1e-5)
    assert torch.allclose(eov, hidden @ weight[model.vocabulary.eov] + model.head.eov_bias, atol=1e-5)
    assert scores.shape == (3, 10) and eov.shape == (3,) and scores.dtype == eov.dtype == torch.float32


@pytest.mark.parametrize("labels", [CODES, tuple(reversed(CODES)), CODES[::4], CODES[:1]])
@pytest.mark.parametrize("states", [1, FEW_STATES, FEW_STATES + 1])
@pytest.mark.parametrize("cap", [None, 0.5])
def test_few_states_against_most_of_the_table_score_as_row_by_row(labels, states, cap) -> None:
    model = tiny_model(labels=labels)
    model.text_config.final_logit_softcapping = cap
    hidden = torch.randn(states, 32, generator=torch.Generator().manual_seed(1))
    by_rows = model.scores(hidden)  # where gradients are wanted rows are picked one by one
    with torch.inference_mode():
        scores, eov = model.scores(hidden)
    assert torch.allclose(scores, by_rows[0], atol=1e-5) and torch.allclose(eov, by_rows[1], atol=1e-5)


def test_the_term_for_seen_codes_by_hand() -> None:
    head = ScoreHead(hidden_size=4, n_labels=3)
    with torch.no_grad():
        head.start(np.exp([-3.0, -2.0, -1.0]))  # rarity 3, 2, 1
        head.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
        head.per_rarity.copy_(torch.tensor([100.0, 0, 0, 1000]))
        head.per_code.copy_(torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]))
        head.per_state.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
        head.per_state.bias.copy_(torch.tensor([0.0, 0, 0, 2]))
    hidden = torch.tensor([[2.0, 4, 6, 8], [0, 0, 0, 0]])
    seen = torch.tensor([[0.0, 1, 1, 1, 0, 1], [1, 2, 0, 1, 1, 0]])  # target, label, four features
    scores, eov = head(torch.zeros(2, 3), torch.tensor([7.0, 8.0]), hidden, seen)
    # target 0, label 1: (5 + 2/2) + (6 + 4/2) + (8 + (8 + 2)/2) = 27, and 2 * (100 + 1000); target 1, label 2: 10 + 11 = 21
    expected = torch.tensor([[0.1, 2227.2, 0.3], [0.1, 0.2, 21.3]])
    assert torch.allclose(scores, expected, atol=1e-3)
    assert eov.tolist() == [7.0, 8.0]


def test_a_head_starts_at_the_log_of_each_codes_rate() -> None:
    for copy in (True, False):
        head = ScoreHead(4, 3, copy)
        head.start(np.array([0.5, 0.01, 1e-5]))
        seen = torch.tensor([[0.0, 1, 1, 1, 0, 1]])
        scores, _ = head(torch.zeros(1, 3), torch.zeros(1), torch.ones(1, 4), seen)
        assert torch.allclose(scores.exp(), torch.tensor([[0.5, 0.01, 1e-5]]))


def test_a_new_head_a_head_without_copy_and_the_offsets_change_no_score() -> None:
    seen = torch.tensor([[0.0, 1, 1, 1, 0, 1]])
    for copy in (True, False):
        head = ScoreHead(4, 3, copy)
        head.cut_offset += 5
        head.order_offset += 7
        assert torch.equal(head(torch.ones(1, 3), torch.zeros(1), torch.ones(1, 4), seen)[0], torch.ones(1, 3))
    assert {name for name, _ in head.named_parameters()} == {"bias", "eov_bias"}


def test_gradients_reach_every_parameter_of_the_head() -> None:
    head = ScoreHead(4, 3)
    seen = torch.tensor([[0.0, 1, 1, 1, 0, 1]])
    head.start(np.exp([-3.0, -2.0, -1.0]))
    head(torch.zeros(1, 3), torch.zeros(1), torch.full((1, 4), 6.0), seen)[0].sum().backward()
    assert torch.allclose(head.per_rarity.grad, torch.tensor([2.0, 2, 0, 2]))
    assert head.bias.grad.tolist() == [1, 1, 1]
    assert head.per_code.grad.tolist() == [[0, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]]
    assert head.per_state.weight.grad.tolist() == [[3] * 4, [3] * 4, [0] * 4, [3] * 4]  # 6 / sqrt(4)


def test_margins_of_seen_codes_are_corrected_but_not_in_training() -> None:
    head = ScoreHead(4, 3)
    with torch.no_grad():
        head.recorded_slope.fill_(0.5)
        head.recorded_shift.copy_(torch.tensor([1.0, 2, 4, 8]))
    seen = torch.tensor([[0.0, 1, 1, 1, 0, 1]])
    given = torch.full((1, 3), 7.0), torch.tensor([3.0]), torch.ones(1, 4), seen
    assert head.train()(*given)[0].tolist() == [[7, 7, 7]]
    assert head.eval()(*given)[0].tolist() == [[7, 16, 7]]  # 3 + 0.5 * (7 - 3) + 1 + 2 + 8


def test_a_state_by_itself_has_the_term_that_it_has_among_others() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.head.recorded_slope.fill_(0.5)
    hidden = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    seen = torch.tensor([[0.0, 1, 1, 1, 0, 1], [0, 4, 0, 1, 1, 0], [1, 4, 1, 1, 0, 0]])
    with torch.inference_mode():
        both, cuts = model.scores(hidden, seen)
        for state, rows in ((0, seen[:2]), (1, seen[2:] * torch.tensor([0, 1, 1, 1, 1, 1]))):
            scores, cut = model.scores(hidden[state : state + 1], rows)
            assert torch.allclose(scores[0], both[state], atol=1e-5) and torch.allclose(cut, cuts[state], atol=1e-5)


def test_every_parameter_has_a_gradient_even_where_no_history_holds_a_label() -> None:
    """Processes that train together exchange gradients of the same parameters, whatever their patients hold."""
    head = ScoreHead(4, 3)
    given, empty = (torch.zeros(1, 3), torch.zeros(1), torch.ones(1, 4)), torch.zeros(0, 2 + len(SEEN_FEATURES))
    scores, eov = head(*given, None)
    assert torch.equal(scores, head(*given, empty)[0])
    (scores.sum() + eov.sum()).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    assert not head.per_code.grad.any()


def test_what_does_not_belong_together_is_refused() -> None:
    model = tiny_model()
    bigger = tiny_vocabulary([*CODES, *icd9(*(f"{n}" for n in range(100, 160)))])
    with pytest.raises(InputError, match="448 embedding rows for 471 tokens"):
        MeraModel(model.backbone, bigger)
    with pytest.raises(InputError, match=r"1 codes without a token, the first is ICD9:999\.9"):
        MeraModel(model.backbone, model.vocabulary, (*CODES, *icd9("999.9")))


def test_the_head_is_saved_and_loaded_to_the_last_digit(tmp_path) -> None:
    model, fresh = tiny_model(seed=0), tiny_model(seed=1)
    model.head.cut_offset += 0.125
    model.save_head(tmp_path)
    fresh.load_head(tmp_path)
    for name, tensor in model.head.state_dict().items():
        assert torch.equal(tensor, fresh.head.state_dict()[name]), name
    assert {"cut_offset", "order_offset"} <= set(fresh.head.state_dict())


@pytest.mark.parametrize("labels", [CODES[:9], ()])
def test_a_head_of_another_label_space_is_refused(tmp_path, labels) -> None:
    if labels:
        tiny_model(labels=labels).save_head(tmp_path)
    with pytest.raises(InputError, match="does not fit this label space"):
        tiny_model().load_head(tmp_path)


def test_code_rows_hold_twice_the_common_direction_at_right_angles_to_every_word() -> None:
    model = tiny_model(())
    vocabulary = model.vocabulary
    start_code_rows(model.backbone, vocabulary, {code: f"Heart {code.code}" for code in vocabulary.ids}, common=2.0)
    table = model.backbone.get_input_embeddings().weight.detach()
    common, words = common_direction(table.shape[1]), table[: vocabulary.n_words]
    rows = torch.stack([table[i] for i in vocabulary.ids.values()])
    assert float((words @ common).abs().max()) < 1e-5
    assert torch.allclose(rows @ common / rows.norm(dim=1), torch.tensor(2 / 5**0.5), atol=1e-4)


def test_batches_of_unlike_length_give_the_states_that_each_gives_alone() -> None:
    model = tiny_model().eval()
    parts = [torch.randint(0, 20, (3, 5)), torch.randint(0, 20, (2, 9)), torch.randint(0, 20, (1, 1))]
    with torch.inference_mode():
        for part, state in zip(parts, model.hidden_of_parts(parts), strict=True):
            assert torch.allclose(state, model.hidden(part), atol=1e-6)
