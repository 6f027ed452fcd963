"""One token per ICD node, one end-of-visit token, on top of a backbone's tokenizer. Knows nothing of patients or weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers

from mera_core.common.errors import InputError
from mera_core.icd.ontology import SYSTEMS, Code

END_OF_VISIT = "<end_of_visit>"
DETAIL = "<visit_detail "


def token_of(code: Code) -> str:
    """The token that stands for `code`, e.g. `ICD9_428.0` (the form of the paper's first author's public code)."""
    return f"{code.system}_{code.code}"


def code_of(token: str) -> Code | None:
    """The code that `token` stands for, or None where it is a word."""
    system, separator, code = token.partition("_")
    return Code(system, code) if separator and system in SYSTEMS else None


class Vocabulary:
    """A tokenizer that has a token for every node of the code systems it was extended with.

    Attributes:
        tokenizer: the Hugging Face tokenizer, added tokens included.
        ids: token id of each code, in the order in which the codes were added.
        code_at: the inverse of `ids`.
        details: token id of each fact of a visit ("discharge: home"); they are read only, so they lie beyond `len`.
        eov: id of the end-of-visit token.
        n_words: tokens `0 .. n_words - 1` are the backbone's own (its words and its special tokens).
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        added = tokenizer.get_added_vocab()
        if END_OF_VISIT not in added:
            raise InputError(f"The tokenizer has no {END_OF_VISIT} token, so it was not made for MERA.")
        if tokenizer.eos_token_id is None:
            raise InputError("The tokenizer has no end-of-sequence token, which ends every answer.")
        self.eov: int = added[END_OF_VISIT]
        pairs = ((id_, code_of(token)) for token, id_ in sorted(added.items(), key=lambda item: item[1]))
        self.code_at: dict[int, Code] = {id_: code for id_, code in pairs if code is not None}
        self.ids: dict[Code, int] = {code: id_ for id_, code in self.code_at.items()}
        self.details: dict[str, int] = {
            token[len(DETAIL) : -1]: id_ for token, id_ in added.items() if token.startswith(DETAIL)
        }
        self.n_words: int = self.eov
        own = [token for token, id_ in added.items() if id_ < self.eov]
        self._plain = _without_added_tokens(tokenizer.backend_tokenizer, own)
        # the codes come last; a tokenizer with unused ids among its words has fewer tokens than its last id says
        self._size: int = max(self.eov, *self.code_at) + 1 if self.code_at else self.eov + 1
        self.bos: int | None = tokenizer.bos_token_id
        self.eos: int = tokenizer.eos_token_id
        self.pad: int = self.eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    @classmethod
    def extend(cls, tokenizer, codes: Iterable[Code]) -> Vocabulary:
        """Add EOV and one token per code to `tokenizer` (in place).

        The tokens are not "special" in the tokenizer's sense: decoding with `skip_special_tokens` would drop them.
        """
        new = [END_OF_VISIT, *map(token_of, codes)]
        tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in new])
        return cls(tokenizer)

    def with_details(self, facts: Iterable[str]) -> Vocabulary:
        """Add one token per fact to the tokenizer (in place); the vocabulary that has them."""
        if self.details:
            raise InputError("The tokenizer has tokens for details already, so it was trained to rank before.")
        tokens = [AddedToken(f"{DETAIL}{fact}>", special=False, normalized=False) for fact in facts]
        self.tokenizer.add_tokens(tokens)
        return Vocabulary(self.tokenizer)

    def __len__(self) -> int:
        """One more than the last code's id; rows of the embedding beyond it are details and padding, never scored."""
        return self._size

    @property
    def rows(self) -> int:
        """Rows that the embedding needs: one more than the last token's id."""
        return max(self._size, 1 + max(self.details.values(), default=0))

    def __contains__(self, code: Code) -> bool:
        return code in self.ids

    def words(self, text: str) -> list[int]:
        """Token ids of plain text; text that spells an added token is words too. Safe to call from several threads."""
        return self._plain.encode(text, add_special_tokens=False).ids

    def text(self, ids: Sequence[int]) -> str:
        """The plain text of word tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True).strip()

    def prefix(self) -> list[int]:
        """What every sequence starts with: the backbone's BOS token where it has one."""
        return [] if self.bos is None else [self.bos]


def _without_added_tokens(backend: Tokenizer, own: Iterable[str]) -> Tokenizer:
    """The same model and rules, sharing its memory, without added tokens.

    A unigram model would still take text for its control tokens (`own`, such as `</s>`) and its bytes (`<0x41>`), so their
    first sign is set apart from the rest.
    """
    plain = Tokenizer(backend.model)
    if backend.normalizer is not None:
        plain.normalizer = backend.normalizer
    spelled = [f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in own]
    apart = pre_tokenizers.Split(Regex("|".join([*spelled, "<(?=0x[0-9A-F]{2}>)"])), "isolated")
    rules = [backend.pre_tokenizer, apart] if backend.pre_tokenizer is not None else [apart]
    plain.pre_tokenizer = pre_tokenizers.Sequence(rules)
    return plain
