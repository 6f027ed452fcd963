"""States in batches: shared beginnings computed once give the same states, and a batch that does not fit is halved."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from mera_core.common.errors import InputError
from mera_core.model import forward
from mera_core.model.forward import beginnings, in_batches, pays, whole_state
from mera_core.model.network import MeraModel
from tests.tiny import CODES, tiny_model, tiny_vocabulary

VOCABULARY = tiny_vocabulary()


def gentle(model: MeraModel) -> MeraModel:
    """Weights of a usual size: large ones blow rounding up."""
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.mul_(0.2 if parameter.ndim == 2 else 1)
    return model


def states(model: MeraModel, sequences, batch_size: int = 64) -> torch.Tensor:
    out = torch.full((len(sequences), model.text_config.hidden_size), torch.nan)
    with torch.inference_mode():
        for rows, found in in_batches(model, sequences, batch_size):
            assert out[rows].isnan().all(), "each sequence has its turn once"
            out[rows] = found
    return out


def alone(model: MeraModel, sequences) -> torch.Tensor:
    """Each sequence by itself."""
    with torch.inference_mode():
        return torch.cat([model.hidden(torch.tensor([list(s)]))[:, -1] for s in sequences])


def variants(length: int = 60, count: int = 30, seed: int = 0) -> list[list[int]]:
    """A sequence, and the same without one token, with another one, longer, and cut short; and a stranger."""
    draw = random.Random(seed)
    whole = [draw.randrange(len(VOCABULARY)) for _ in range(length)]
    made = [whole]
    for _ in range(count):
        place = draw.randrange(5, length)
        made.append(whole[:place] + whole[place + 1 :])
        made.append([*whole[:place], draw.randrange(len(VOCABULARY)), *whole[place + 1 :]])
    return [*made, [*whole, 3, 4], whole[: length // 2], whole, [9, 8, 7]]


def test_beginnings_leave_a_token_to_compute() -> None:
    sequences = [[1, 2, 3], [1, 2, 4, 5], [2, 2, 3], [1, 2], [1, 2, 3], [1, 2, 3, 4]]
    assert beginnings(sequences) == [2, 2, 0, 1, 2, 3]


def test_sharing_pays_for_variants_and_not_for_strangers() -> None:
    sequences = variants()
    assert pays(sequences, beginnings(sequences))
    draw = random.Random(1)
    strangers = [[1, 5, *(draw.randrange(400) for _ in range(40))] for _ in range(60)]
    assert not pays(strangers, beginnings(strangers))
    assert not pays(sequences[:3], beginnings(sequences[:3]))  # too few to save anything


@pytest.mark.parametrize("batch_size", [1, 7, 200])
@pytest.mark.parametrize("tied", [True, False])
def test_a_shared_beginning_changes_no_state(batch_size, tied, monkeypatch) -> None:
    model, sequences = gentle(tiny_model(tied=tied)), variants()
    used = []
    after = forward._states_after
    monkeypatch.setattr(forward, "_states_after", lambda *args: used.append(len(args[-1])) or after(*args))
    found = states(model, sequences, batch_size)
    assert sum(used) == len(sequences) - 1 and max(used) <= batch_size
    torch.testing.assert_close(found, alone(model, sequences), rtol=0, atol=1e-5)


def test_a_batch_on_a_cpu_stays_in_the_cache_of_a_core(monkeypatch) -> None:
    model, seen = gentle(tiny_model()), []
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda ids: seen.append(ids.shape) or hidden(ids))
    states(model, strangers(40, length=100), batch_size=64)
    assert max(rows * length for rows, length in seen) <= forward.CACHED
    assert {length for _, length in seen} == {100} and sum(rows for rows, _ in seen) == 40


def mistral(window: int) -> MeraModel:
    torch.manual_seed(1)
    sizes = {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": window}
    config = MistralConfig(**sizes, **heads, pad_token_id=VOCABULARY.pad)
    return MeraModel(MistralForCausalLM(config), VOCABULARY, CODES).eval()


@pytest.mark.parametrize("window", [16, 4096])
def test_a_window_that_slides_is_computed_without_sharing(window) -> None:
    model, sequences = mistral(window), variants()
    with torch.inference_mode():
        shared = whole_state(model, sequences[0])
    assert (shared is None) == (window == 16)
    torch.testing.assert_close(states(model, sequences), alone(model, sequences), rtol=0, atol=1e-5)


@pytest.fixture
def small_memory(monkeypatch):
    """A model whose memory holds so many tokens of a batch; and the sizes of the batches that were tried."""
    tried: list[int] = []

    def of(model: MeraModel, most: int, message: str = "DefaultCPUAllocator: can't allocate memory") -> list[int]:
        hidden = model.hidden

        def checked(ids):
            tried.append(len(ids))
            if ids.numel() > most:
                raise RuntimeError(message)
            return hidden(ids)

        monkeypatch.setattr(model, "hidden", checked)
        return tried

    return of


def strangers(count: int, length: int = 10) -> list[list[int]]:
    draw = random.Random(2)
    return [[draw.randrange(400) for _ in range(length)] for _ in range(count)]


def test_a_batch_that_does_not_fit_is_halved_and_so_are_those_after_it(small_memory) -> None:
    model, sequences = gentle(tiny_model()), strangers(40)
    expected = alone(model, sequences)
    tried = small_memory(model, most=100)
    torch.testing.assert_close(states(model, sequences, 16), expected, rtol=0, atol=1e-5)
    assert tried == [16, 8, 8, 8, 8, 8]


@pytest.mark.parametrize(("most", "batch_size", "said"), [(100, 64, "20 histories"), (5, 1, "1 history")])
def test_half_a_batch_that_does_not_fit_either_is_said_in_words(small_memory, most, batch_size, said) -> None:
    model, sequences = gentle(tiny_model()), strangers(40)
    tried = small_memory(model, most)
    with pytest.raises(InputError, match=f"memory does not suffice for {said} at a time: choose a smaller batch size"):
        states(model, sequences, batch_size)
    assert len(tried) <= 2


def test_other_errors_are_not_hidden(small_memory) -> None:
    model = gentle(tiny_model())
    small_memory(model, 100, "index out of range")
    with pytest.raises(RuntimeError, match="index out of range"):
        states(model, strangers(40), 16)
