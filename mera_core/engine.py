"""The façade: history -> tokens -> one forward pass -> ranking, and the model's memory. Knows no pages and no training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from mera_core.checkpoint.folder import Manifest, folder_hash, load_checkpoint, refuse_unranked
from mera_core.common.bundled import SAMPLES
from mera_core.common.errors import InputError
from mera_core.history.plausible import implausible
from mera_core.history.records import Note, Patient, Visit, resolve
from mera_core.history.translate import translate
from mera_core.icd.ontology import SYSTEM_NAMES, AmbiguousCodeError, Code, Ontology
from mera_core.model.forward import TOKENS, in_batches
from mera_core.model.network import MeraModel
from mera_core.model.prompts import CODE, DEFINITION, EQUIVALENT, in_words, question_text
from mera_core.model.recall import Recall, recall_ancestors, recall_codes, recall_definitions, recall_equivalents
from mera_core.model.recurrence import seen_features
from mera_core.model.sequence import Encoded, Encoder
from mera_core.ranking.calibration import Calibrations
from mera_core.ranking.population import Population, trained_on
from mera_core.ranking.ranking import ORDERS, Ranking, best_first, by_probability, for_weighted_f1

BUNDLED = SAMPLES / "mera-mini"


class Engine:
    """A loaded checkpoint that ranks and recalls. Safe to share between threads.

    Attributes:
        ontology: the code sets. label_space: the codes that are ranked, sorted. manifest: what `mera.json` says.
        input_codes: the codes it reads in histories.
        name: the checkpoint's name and the hash of its content, e.g. "mera-mini 1f0c9a2b7d3e".
        threshold: how its end-of-visit score was trained: "independent", "adaptive" or "none".
        calibration: the curves and the cut-off that lists are made with; None where the checkpoint has none.
    """

    def __init__(self, model: MeraModel, manifest: Manifest, ontology: Ontology):
        self.model, self.ontology = model, ontology
        self._manifest = manifest
        self.manifest: dict[str, Any] = manifest.to_json()
        self.label_space: tuple[Code, ...] = manifest.label_space
        self.name = f"{manifest.name} {folder_hash(manifest)}"
        self._index = {code: i for i, code in enumerate(self.label_space)}
        self._labels = np.fromiter(self.label_space, object)  # in an array a whole list is put in order at once
        self.input_codes = frozenset(manifest.input_codes)
        self.calibration = _calibration(manifest)
        population, codes = manifest.population, manifest.input_codes
        self.population = Population.from_dict(population, codes) if population else None
        self._encoder = Encoder(model.vocabulary, manifest.sequence)
        self.threshold: str = manifest.method.get("rank", {}).get("threshold", "independent")

    @classmethod
    def load(cls, path: str | Path | None = None, quantize: str | None = None) -> Engine:
        """Load a checkpoint folder, the bundled one by default. Its weights take no gradients.

        Args:
            quantize: None for bfloat16 on a GPU and float32 on a CPU; "nf4" (4-bit) or "int8", through bitsandbytes, on
                either; or "bf16".

        Raises:
            InputError: no such folder, or a file of it is missing, altered, or does not fit the others.
        """
        model, manifest = load_checkpoint(Path(path) if path is not None else BUNDLED, quantize)
        return cls(model.requires_grad_(False), manifest, Ontology.load())

    @property
    def scope(self) -> str:
        """The label space in words: '882 codes of ICD-9-CM: 848 categories, 34 full codes'."""
        books = dict.fromkeys(SYSTEM_NAMES[code.system] for code in self.label_space)
        kinds = Counter(self.ontology.kind(code) for code in self.label_space)
        if not kinds:
            return "no codes: this checkpoint has memorized ICD codes only"
        parts = [f"{count:,} {_plural(kind, count)}" for kind, count in kinds.most_common()]
        return f"{len(self.label_space):,} codes of {' and '.join(books)}: {', '.join(parts)}"

    @property
    def trained_on(self) -> str:
        """Whom the model learned from, in words; "" where the manifest does not tell."""
        return trained_on(self._manifest.data)

    @property
    def cut_offset(self) -> np.ndarray:
        """By how much each label must pass EOV to be predicted in the order "f1", [C]; see `ranking.for_weighted_f1`."""
        return self.model.head.cut_offset.cpu().numpy()

    def rank(self, patient: Patient, order: str = "probability") -> Ranking:
        """Rank the label space for the visit after the last one of `patient`.

        Codes that can't be read, or are read as another code, are named in `Ranking.notes`. So is a history that is unlike
        those of training ('unlike_training'), and a code that sex or age speak against ('implausible'). order: a key of
        `ranking.ORDERS`; "f1" gives a list made for weighted F1.

        Raises:
            InputError: the history holds no code that this checkpoint reads, the checkpoint does not rank, or there is no
                such order.
        """
        return self.rank_many([patient], order=order)[0]

    def rank_many(self, patients: Iterable[Patient], batch_size: int = 64, order: str = "probability") -> list[Ranking]:
        """`rank` for each patient, in order; histories of like length share a forward pass.

        Scores can differ from single calls in the last digits (about 1e-5 in float32): batches add in another order.
        """
        if order not in ORDERS:
            raise InputError(f'A list has no order "{order}"; it can be {" or ".join(ORDERS)}.')
        read = [self._read(patient) for patient in patients]
        scores, eov = self.scores([(history, encoded) for history, encoded, _ in read], batch_size)
        return [self._ranking(scores[i], eov[i], history, notes, order) for i, (history, _, notes) in enumerate(read)]

    def read_history(self, patient: Patient) -> tuple[Patient, tuple[Note, ...]]:
        """The history as the checkpoint reads it, with notes: all that was changed or left out, and what is unusual."""
        resolved, notes = resolve(patient, self.ontology)
        history, more = translate(resolved, self.input_codes, self.ontology)
        notes = (*notes, *more)
        if not history.visits:
            return history, notes
        unlike = self.population.note(history, notes, self.trained_on) if self.population else None
        return history, (*([unlike] if unlike else []), *notes, *implausible(resolved, self.ontology))

    def _read(self, patient: Patient) -> tuple[Patient, Encoded, tuple[Note, ...]]:
        refuse_unranked(self.name, self.label_space)
        if not patient.visits:
            raise InputError("The history holds no visit.")
        history, notes = self.read_history(patient)
        if not history.visits:
            told = " ".join(note.message for note in notes[:5])
            raise InputError(f"The history holds no code that this model can read: {told}")
        encoded = self.encode(history)
        return history, encoded, (*notes, *encoded.notes)

    def encode(self, history: Patient) -> Encoded:
        """Tokens of a history that is in the checkpoint's terms (`read_history`)."""
        return self._encoder.encode(history)

    @torch.inference_mode()
    def scores(
        self, read: Sequence[tuple[Patient, Encoded]], batch_size: int = 64, tokens: int = TOKENS
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits [N, C] and end-of-visit logits [N] for histories in the checkpoint's terms, in order.

        A model whose end-of-visit token was not trained to be a threshold ("none") is cut by its share of ranking mass: the
        log of the sum of all codes' exponentials stands in place of the end-of-visit logit.
        What variants of the first history have in common with it is computed once where that pays; the scores are those of
        `rank` to about 1e-5 in float32.

        Args:
            batch_size, tokens: most of a forward pass, in histories and in tokens with their padding.

        Raises:
            InputError: half a batch does not fit the memory, or a score is no number.
        """
        scores = np.empty((len(read), len(self.label_space)), np.float32)
        eov = np.empty(len(read), np.float32)
        sequences = [encoded.input_ids for _, encoded in read]
        for rows, hidden in in_batches(self.model, sequences, batch_size, tokens=tokens):
            seen = [[n, *row] for n, i in enumerate(rows) for row in seen_features(read[i][0].visits, self._index)]
            tensor = torch.from_numpy(np.array(seen, np.float32)).to(hidden.device) if seen else None
            batch_scores, batch_eov = self.model.scores(hidden, tensor)
            if self.threshold == "none":
                batch_eov = batch_scores.float().logsumexp(1)
            scores[rows], eov[rows] = batch_scores.cpu().numpy(), batch_eov.cpu().numpy()
        if not (np.isfinite(scores).all() and np.isfinite(eov).all()):
            raise InputError(f"The checkpoint {self.name} gives scores that are no numbers: its weights are damaged.")
        return scores, eov

    def warm_up(self) -> float:
        """Run the model once over a short and a long history, so that the first user does not wait; seconds it took.

        The histories are made up of the first codes of the label space. A checkpoint that does not rank is asked nothing.
        """
        began = perf_counter()
        codes = [code for code in self.label_space if code in self.input_codes][:2]
        if codes:
            self.rank_many([Patient([Visit(codes)]), Patient([Visit(codes)] * 8)])
        return perf_counter() - began

    def held(self, histories: Sequence[Patient]) -> np.ndarray:
        """Which labels each history in the checkpoint's terms holds, bool [N, C]."""
        found = np.zeros((len(histories), len(self.label_space)), bool)
        for row, history in zip(found, histories, strict=True):
            row[[self._index[code] for visit in history.visits for code in visit.codes if code in self._index]] = True
        return found

    def ranked(self, scores: np.ndarray, eov: np.ndarray, held: np.ndarray, order: str = "probability") -> np.ndarray:
        """The scores [N, C] that lists are sorted by, above `eov` exactly for predicted codes.

        Without a calibration, log odds are taken to be the margin over EOV, and the cut-off is EOV itself.

        Args:
            scores, eov: as `scores` gives them. held: bool [N, C], as `held` gives it. order: a key of `ranking.ORDERS`.
        """
        if order == "f1":
            return for_weighted_f1(scores, eov, self.cut_offset, self.model.head.order_offset.cpu().numpy())
        if self.calibration is None:
            return scores.astype(np.float64)
        return by_probability(self.calibration.logit(_margin(scores, eov), held), eov, self.calibration.cut)

    def probability(self, scores: np.ndarray, eov: np.ndarray, held: np.ndarray) -> np.ndarray | None:
        """Each code's own probability [N, C], arguments as of `ranked`; None where the checkpoint is not calibrated."""
        return None if self.calibration is None else self.calibration.probability(_margin(scores, eov), held)

    def _ranking(
        self, scores: np.ndarray, eov: np.float32, history: Patient, notes: tuple[Note, ...], by: str
    ) -> Ranking:
        one, cut, held = scores[None], np.array([eov]), self.held([history])
        ranked, probability = self.ranked(one, cut, held, by)[0], self.probability(one, cut, held)
        order = best_first(ranked, self.label_space)
        share = np.exp(scores.astype(np.float64) - scores.max())
        return Ranking(
            codes=tuple(self._labels[order].tolist()),
            scores=ranked[order],
            cut=float(eov),
            share=(share / share.sum())[order],
            recurrent=held[0, order],
            checkpoint=self.name,
            label_level=self._manifest.label_level,
            ontology=self.ontology,
            notes=notes,
            probability=None if probability is None else probability[0, order],
            order=by,
        )

    def recall(
        self, code: str | Code | None = None, definition: str | None = None, system: str | None = None
    ) -> Recall:
        """Ask the model's memory for a code's definition, or for the code of a definition.

        Raises:
            InputError: not exactly one of `code` and `definition`, an unknown code, or one of a system that this
                checkpoint did not memorize.
        """
        if (code is None) == (definition is None):
            raise InputError("Ask recall for either a code or a definition.")
        return self._recall_code(code, system) if code is not None else self._recall_definition(definition)

    def recall_ancestors(self, code: str | Code, system: str | None = None) -> list[Recall]:
        """Ask the model's memory for what stands above a code: one answer a level, the chapter first.

        Raises:
            InputError: an unknown code, or one of a system that this checkpoint did not memorize.
        """
        code = self._memorized(code, system)
        answers = []
        for truth in reversed(self.ontology.ancestors(code)):
            kind = self.ontology.kind(truth)
            best = recall_ancestors(self.model, [code], kind)[0]
            answers.append(self._answer(question_text(kind, code.code), best, [truth]))
        return answers

    @property
    def knows_equivalents(self) -> bool:
        """Whether this checkpoint memorized the equivalence maps from the other code system to its own."""
        return self._manifest.knows_equivalents

    def recall_equivalent(self, code: str | Code, system: str | None = None) -> Recall:
        """Ask the model's memory which code of its own system stands for a code of the other one.

        `truth` holds every code that the CMS maps give for it alone; `exact` is whether the answer is one of them.

        Raises:
            InputError: an unknown code, one of a system that this checkpoint memorized itself, or a checkpoint that did
                not memorize the maps.
        """
        code = self.ontology.parse(code, system) if isinstance(code, str) else code
        if not self.knows_equivalents:
            raise InputError(f"The checkpoint {self.name} did not memorize the equivalence maps.")
        own = [each for each in self._manifest.systems if each != code.system]
        if not own:
            raise InputError(f"{code} is of a system that this checkpoint memorized: ask for its definition.")
        subject = in_words(code, self.ontology.definition(code))
        best = recall_equivalents(self.model, [subject])[0]
        truths = self.ontology.equivalents(code, own[0])
        return self._answer(question_text(EQUIVALENT, subject), best, truths)

    def recall_definitions(self, codes: Sequence[Code]) -> list[str]:
        """The model's definition of each code, from memory, in one batch.

        Raises:
            InputError: a code of a system that this checkpoint did not memorize.
        """
        return recall_definitions(self.model, [self._memorized(code, None) for code in codes])

    def _memorized(self, code: str | Code, system: str | None) -> Code:
        systems = self._manifest.systems
        if isinstance(code, str):
            code = self._asked(code, system)
        if code not in self.model.vocabulary:
            raise InputError(f"{code} can't be recalled: this checkpoint memorized {' and '.join(systems)} only.")
        return code

    def _asked(self, code: str, system: str | None) -> Code:
        """What a text asks for: of two meanings the one memorized, but never a typing error for a code of the other book."""
        try:
            return self.ontology.parse(code, system)
        except AmbiguousCodeError as error:
            memorized = [each for each in error.candidates if each in self.model.vocabulary]
            if len(memorized) == 1:
                return memorized[0]
            raise

    def _recall_code(self, code: str | Code, system: str | None) -> Recall:
        code = self._memorized(code, system)
        answer = recall_definitions(self.model, [code])[0]
        truth = self.ontology.definition(code)
        back = recall_codes(self.model, [answer])[0] if answer else []
        return Recall(question_text(DEFINITION, code.code), answer, truth, answer == truth, self._defined(back))

    def _recall_definition(self, definition: str) -> Recall:
        definition = " ".join(definition.split())
        if not definition:
            raise InputError("The definition to recall a code for is empty.")
        if len(definition) > 500:
            raise InputError(f"The definition is {len(definition)} characters long; at most 500 are read.")
        best = recall_codes(self.model, [definition])[0]
        asked = definition.casefold()
        truths = [code for code in self.model.vocabulary.ids if self.ontology.definition(code).casefold() == asked]
        billable = [code for code in truths if self.ontology.is_billable(code)] or truths
        return replace(
            self._answer(question_text(CODE, definition), best, truths), truth=", ".join(code.code for code in billable)
        )

    def _answer(self, question: str, best: list[tuple[Code, float]], truths: Sequence[Code]) -> Recall:
        """The likeliest code as the answer, right where it is one of the truths; neither right nor wrong without any."""
        exact = best[0][0] in truths if truths else None
        return Recall(question, best[0][0].code, ", ".join(code.code for code in truths), exact, self._defined(best))

    def _defined(self, codes: list[tuple[Code, float]]) -> tuple[tuple[Code, str, float], ...]:
        return tuple((code, self.ontology.definition(code), share) for code, share in codes)


def _margin(scores: np.ndarray, eov: np.ndarray) -> np.ndarray:
    return scores.astype(np.float64) - eov[:, None]


def _calibration(manifest: Manifest) -> Calibrations | None:
    """The curves of a checkpoint; an older one's only curve for all codes, cut at its best single threshold over EOV."""
    if not manifest.calibration:
        return None
    found = Calibrations.from_dict(manifest.calibration)
    if "cut" in manifest.calibration:
        return found
    try:
        threshold = float(manifest.method["cut"]["best_threshold"]["over_eov"]["threshold"])
    except (KeyError, TypeError, ValueError):
        return found
    return replace(found, cut=float(found.new.logit(np.array(threshold))))


def _plural(kind: str, count: int) -> str:
    """'category', 2 -> 'categories'; the lowest level is called a full code."""
    kind = "full code" if kind == "code" else kind
    if count == 1:
        return kind
    return kind[:-1] + "ies" if kind.endswith("y") else kind + "s"
