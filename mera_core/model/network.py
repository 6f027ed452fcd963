"""The network: a backbone, one row per code, and a small score head. Deals in token ids; knows nothing of patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Code
from mera_core.model.row_cache import KeptRows, picked
from mera_core.model.vocabulary import Vocabulary

HEAD_FILE = "score_head.safetensors"
FEW_STATES, WIDEST_SPAN = 16, 2  # see `MeraModel._scored`
SEEN_FEATURES = ("last visit", "any visit", "more than one visit", "first code of the last visit")
"""What is told of each label that the history already holds (see `ScoreHead`)."""


class ScoreHead(nn.Module):
    """What is added to the language model's logits: a bias and a term for codes that the history already holds.

    `s_c = h . E_c + b_c + sum_f seen[c, f] (w[c, f] + v_f r_c + u_f . h / sqrt(H))` with f over `SEEN_FEATURES`: a code
    that was recorded before comes back for reasons that differ by code (w), by how rare it is (v, with r_c = -log of the
    code's rate) and by patient (u). Not in the paper's digest; switched off by `copy=False`. Outside of training the margin
    over EOV of such a code is corrected, `m -> slope m + seen[c] . shift`, as fitted on validation patients.
    """

    cut_offset: Tensor
    order_offset: Tensor
    rarity: Tensor
    recorded_slope: Tensor
    recorded_shift: Tensor

    def __init__(self, hidden_size: int, n_labels: int, copy: bool = True):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n_labels))
        self.eov_bias = nn.Parameter(torch.zeros(1))
        # fitted on validation patients, no part of the scores: by how much each code must pass EOV to be predicted, and by
        # how much the order of the codes below the cut-off discounts it
        self.register_buffer("cut_offset", torch.zeros(n_labels))
        self.register_buffer("order_offset", torch.zeros(n_labels))
        self.copy = copy
        if copy:
            self.per_code = nn.Parameter(torch.zeros(n_labels, len(SEEN_FEATURES)))
            self.per_rarity = nn.Parameter(torch.zeros(len(SEEN_FEATURES)))
            self.register_buffer("rarity", torch.zeros(n_labels))
            self.per_state = nn.Linear(hidden_size, len(SEEN_FEATURES))
            nn.init.zeros_(self.per_state.weight)
            nn.init.zeros_(self.per_state.bias)
            self.register_buffer("recorded_slope", torch.ones(1))
            self.register_buffer("recorded_shift", torch.zeros(len(SEEN_FEATURES)))

    def start(self, rate: np.ndarray) -> None:
        """Start where counting ends: the bias is the log of each code's rate [C] in the training visits."""
        log_rate = torch.tensor(np.log(rate), dtype=torch.float32)
        with torch.no_grad():
            self.bias.copy_(log_rate)
            if self.copy:
                self.rarity.copy_(-log_rate)

    def forward(self, logits: Tensor, eov: Tensor, hidden: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Add the biases and the term for seen codes: scores [N, C] and the end-of-visit score [N].

        Args:
            logits: [N, C] of the language model over the label space, and eov [N] of the end-of-visit token.
            hidden: [N, H] the states they came from.
            seen: [M, 2 + F] rows (target index n, label index c, features ...) of the labels that a history holds, as
                float; at most one row for each (n, c).
        """
        scores, eov = logits + self.bias, eov + self.eov_bias
        if not self.copy:
            return scores, eov
        if seen is None or not len(seen):
            if self.training:  # every process has a gradient of the same parameters, whatever its patients hold
                unused = (self.per_code, self.per_rarity, *self.per_state.parameters())
                scores = scores + 0 * sum(parameter.sum() for parameter in unused)
            return scores, eov
        (row, label), features = seen[:, :2].long().unbind(1), seen[:, 2:].to(scores.dtype)
        of_state, cut = self.per_state(hidden), eov
        if len(hidden) > 1:  # a single state's are those of every row
            of_state, cut = of_state[row], eov[row]
        weights = torch.addcmul(self.per_code[label], self.rarity[label, None], self.per_rarity)
        weights = torch.add(weights, of_state, alpha=hidden.shape[1] ** -0.5)
        term = (features * weights).sum(-1)
        if not self.training:
            margin = scores[row, label] + term - cut
            term = torch.addcmul(term, margin, self.recorded_slope - 1).addmv(features, self.recorded_shift)
        return scores.index_put((row, label), term, accumulate=True), eov


class MeraModel(nn.Module):
    """A language model whose vocabulary holds the codes, and the scores it gives them.

    Attributes:
        backbone: any `AutoModelForCausalLM` or `AutoModelForSeq2SeqLM`; its rows may be wrapped by peft.
        encoder_decoder: whether it reads with an encoder and answers with a decoder, as T5 does.
        labels: the label space, in a fixed order (sorted); `scored_ids` [C + 1] holds their token ids, then that of EOV.
    """

    scored_ids: Tensor

    def __init__(self, backbone, vocabulary: Vocabulary, labels: Sequence[Code] = (), copy: bool = True):
        super().__init__()
        if (rows := backbone.get_input_embeddings().weight.shape[0]) < vocabulary.rows:
            raise InputError(
                f"The model has {rows} embedding rows for {vocabulary.rows} tokens: model and tokenizer do not belong together."
            )
        if unknown := [code for code in labels if code not in vocabulary]:
            raise InputError(f"The label space holds {len(unknown)} codes without a token, the first is {unknown[0]}.")
        self.backbone, self.vocabulary, self.labels = backbone, vocabulary, tuple(labels)
        ids = [*(vocabulary.ids[code] for code in labels), vocabulary.eov]
        where = next(backbone.parameters()).device
        self.register_buffer("scored_ids", torch.tensor(ids, device=where), persistent=False)
        self._span = slice(min(ids), max(ids) + 1)
        self._kept: KeptRows | None = None
        self.text_config = backbone.config.get_text_config()
        self.encoder_decoder: bool = bool(backbone.config.is_encoder_decoder)
        self.head = ScoreHead(self.text_config.hidden_size, len(self.labels), copy) if labels else None

    @property
    def label_ids(self) -> Tensor:
        """Token ids [C] of the label space."""
        return self.scored_ids[:-1]

    def train(self, mode: bool = True) -> MeraModel:
        """As of any module; what training may change is not kept."""
        self._kept = None
        return super().train(mode)

    @property
    def device(self) -> torch.device:
        """Where token ids are wanted."""
        return self.scored_ids.device

    @property
    def decoder_start(self) -> int | None:
        """The token that an encoder-decoder's answers begin with; None for a decoder alone."""
        start = getattr(self.text_config, "decoder_start_token_id", None)
        return (self.vocabulary.pad if start is None else start) if self.encoder_decoder else None

    def hidden(self, input_ids: Tensor) -> Tensor:
        """States [B, T, H] of right-padded token ids [B, T]; the state at a sequence's end predicts what follows it.

        A causal model's state never depends on what stands to its right, so right padding needs no mask. An
        encoder-decoder reads a whole sequence, and its first decoder step predicts: that state, at every place of a row.
        """
        if self.encoder_decoder:
            return self._decoded(input_ids, None)
        # a mask of ones spares decoders a look at whether several sequences were packed into one
        return self.backbone.base_model(
            input_ids=input_ids, attention_mask=torch.ones_like(input_ids), use_cache=False
        ).last_hidden_state

    def hidden_of_parts(self, parts: Sequence[Tensor], decoder_ids: Sequence[Tensor | None] = ()) -> list[Tensor]:
        """`hidden` of several batches of unlike length, with one look into the embedding table.

        The table's gradient is as large as the table: one look makes it once a step and not once a batch.

        Args:
            decoder_ids: for an encoder-decoder, `decoder_start` and the answers' tokens but the last [B, A] of each part
                whose states [B, A, H] are wanted, None for the others.
        """
        if self.encoder_decoder:
            wanted = decoder_ids or [None] * len(parts)
            return [self._decoded(part, answer) for part, answer in zip(parts, wanted, strict=True)]
        embedded = self.backbone.get_input_embeddings()(torch.cat([part.flatten() for part in parts]))
        shaped = [e.view(*p.shape, -1) for e, p in zip(embedded.split([p.numel() for p in parts]), parts, strict=True)]
        return [self.backbone.base_model(inputs_embeds=e, use_cache=False).last_hidden_state for e in shaped]

    def _decoded(self, input_ids: Tensor, decoder_ids: Tensor | None) -> Tensor:
        mask = (input_ids != self.vocabulary.pad).long()
        read = self.backbone.get_encoder()(input_ids=input_ids, attention_mask=mask).last_hidden_state
        start = input_ids.new_full((len(input_ids), 1), self.decoder_start)
        states = self.backbone.get_decoder()(
            input_ids=start if decoder_ids is None else decoder_ids,
            encoder_hidden_states=read,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        return self._scaled(states if decoder_ids is not None else states.expand(-1, input_ids.shape[1], -1))

    def _scaled(self, states: Tensor) -> Tensor:
        """T5 with tied tables gives its output table states that are divided by the root of their width."""
        scale = getattr(self.text_config, "scale_decoder_outputs", False)
        return states * states.shape[-1] ** -0.5 if scale else states

    def step(self, input_ids: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
        """One step of decoding: the state [B, H] that predicts the next token, and the memory for the step after.

        Args:
            input_ids: at first the questions [B, T], all of one length; then the tokens chosen last [B, 1].
            memory: what the step before gave.
        """
        if not self.encoder_decoder:
            out = self.backbone.base_model(input_ids=input_ids, past_key_values=memory, use_cache=True)
            return out.last_hidden_state[:, -1], out.past_key_values
        if memory is None:
            read, past = self.backbone.get_encoder()(input_ids=input_ids).last_hidden_state, None
            input_ids = input_ids.new_full((len(input_ids), 1), self.decoder_start)
        else:
            read, past = memory
        out = self.backbone.get_decoder()(
            input_ids=input_ids, encoder_hidden_states=read, past_key_values=past, use_cache=True
        )
        return self._scaled(out.last_hidden_state[:, -1]), (read, out.past_key_values)

    def logits(self, hidden: Tensor, token_ids: Tensor | slice) -> Tensor:
        """The backbone's logits [..., K] of the given tokens only, from states [..., H]."""
        table = self.backbone.get_output_embeddings()
        bias = getattr(table, "bias", None)
        return self.against(hidden, picked(table.weight, token_ids), None if bias is None else bias[token_ids])

    def against(self, hidden: Tensor, rows: Tensor, bias: Tensor | None = None) -> Tensor:
        """The logits [..., K] that output rows [K, H], with a bias [K], would give states [..., H]."""
        logits = hidden @ rows.T
        if bias is not None:
            logits = logits + bias
        if cap := getattr(self.text_config, "final_logit_softcapping", None):  # Gemma 2
            logits = cap * torch.tanh(logits / cap)
        return logits

    def scores(self, hidden: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scores over the label space and of EOV from states [N, H].

        Returns:
            scores [N, C] and the end-of-visit score [N], both float32.
        """
        logits = self._scored(hidden).float()
        return self.head(logits[:, :-1], logits[:, -1], hidden.float(), seen)

    def _scored(self, hidden: Tensor) -> Tensor:
        """Logits [N, C + 1] of `scored_ids`.

        For a few states the copy of rows would cost more than the product: it is spared where the rows are most of a span
        of the table, else kept where weights take no gradients.
        """
        if torch.is_grad_enabled() or len(hidden) > FEW_STATES:
            return self.logits(hidden, self.scored_ids)
        first, end = self._span.start, self._span.stop
        if end - first <= WIDEST_SPAN * len(self.scored_ids):
            return self.logits(hidden, self._span)[:, self.scored_ids - first]
        table, kept = self.backbone.get_output_embeddings(), self._kept
        if kept is None or not kept.hold(table.weight):
            kept = self._kept = KeptRows.of(table.weight, self.scored_ids)
        if kept is None:
            return self.logits(hidden, self.scored_ids)
        bias = getattr(table, "bias", None)
        return self.against(hidden, kept.rows, None if bias is None else bias[self.scored_ids])

    def save_head(self, folder: Path) -> None:
        """Write the score head beside the backbone's own files."""
        if self.head is not None:
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.head.state_dict().items()}
            save_file(tensors, folder / HEAD_FILE)

    def load_head(self, folder: Path) -> None:
        """Read the score head; raises InputError where it does not fit the label space, or holds non-finite values."""
        try:
            numbers = {name: tensor.float() for name, tensor in load_file(folder / HEAD_FILE).items()}
            self.head.load_state_dict(numbers)
        except (RuntimeError, OSError) as error:
            raise InputError(f"The score head in {folder / HEAD_FILE} does not fit this label space.") from error
        if odd := [name for name, tensor in numbers.items() if not tensor.isfinite().all()]:
            raise InputError(f"The score head in {folder / HEAD_FILE} holds non-finite values ({odd[0]}).")


def common_direction(width: int) -> Tensor:
    """The direction [width], of unit length, that all code rows share and no word row holds."""
    draw = torch.randn(width, generator=torch.Generator().manual_seed(0))
    return draw / draw.norm()


def start_code_rows(
    backbone, vocabulary: Vocabulary, definitions: dict[Code, str], decay: float = 0.5, common: float = 0.0
) -> None:
    """Start each code's embedding row at the position-weighted sum of its definition's word rows.

    Weights are `(1 + position) ** -decay`; the sum is scaled to the word rows' mean norm (docs/method.md).
    `common` times that norm goes into one direction that all code rows share and no word row holds (ours): it tells a
    code from the words it is made of, on the way in and on the way out. With untied embeddings the output rows start in
    the same way from the output rows of the words. In place.
    """
    tables = {id(t.weight): t.weight for t in (backbone.get_input_embeddings(), backbone.get_output_embeddings())}
    with torch.no_grad():
        for weight in tables.values():
            words = weight[: vocabulary.n_words].float()
            norm = words.norm(dim=1).mean()
            shared = torch.zeros(words.shape[1], device=weight.device)
            if common:
                shared = common_direction(words.shape[1]).to(weight.device)
                words -= (words @ shared)[:, None] * shared
                weight[: vocabulary.n_words] = words.to(weight.dtype)
            for code, definition in definitions.items():
                row = _row_of_words(words, vocabulary.words(definition), decay) + common * shared
                weight[vocabulary.ids[code]] = (row * norm).to(weight.dtype)
            weight[vocabulary.eov] = words.mean(0).to(weight.dtype)


def start_detail_rows(backbone, vocabulary: Vocabulary, decay: float = 0.5) -> None:
    """Start the input row of each fact of `vocabulary.details` at its words', as `start_code_rows` does. In place."""
    weight = backbone.get_input_embeddings().weight
    with torch.no_grad():
        words = weight[: vocabulary.n_words].float()
        norm = words.norm(dim=1).mean()
        for fact, id_ in vocabulary.details.items():
            weight[id_] = (_row_of_words(words, vocabulary.words(fact), decay) * norm).to(weight.dtype)


def _row_of_words(words: Tensor, ids: Sequence[int], decay: float) -> Tensor:
    """Position-weighted sum [width] of word rows [n, width], of unit length."""
    order = torch.arange(1, len(ids) + 1, device=words.device, dtype=torch.float32)
    row = (order.pow(-decay)[:, None] * words[torch.tensor(ids, device=words.device)]).sum(0)
    return row / row.norm().clamp_min(1e-6)
