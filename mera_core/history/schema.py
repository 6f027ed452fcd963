"""The shape of a HISTORY.json as pydantic models. Apart from `history`, which imports it when there is one to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, ValidationInfo, model_validator

from mera_core.common.errors import InputError, shown
from mera_core.common.limits import Limits, changed_by
from mera_core.common.schema import STRICT, sentence
from mera_core.history.patient import OLDEST_AGE

_SEX_WORDS = {"F": "F", "FEMALE": "F", "M": "M", "MALE": "M", "U": "U", "UNKNOWN": "U"}


def _within_limit(text: Any, info: ValidationInfo) -> Any:
    """Refuse a text that is longer than the limit before anything repeats or compares it."""
    limits = info.context
    if isinstance(text, str) and len(text) > limits.text_characters:
        most = f"at most {limits.text_characters:,} can be read{changed_by('text_characters')}"
        raise ValueError(f"has {len(text):,} characters, and {most}")
    return text


_Short = AfterValidator(_within_limit)
_Text = Annotated[str, _Short]
_Details = dict[Annotated[_Text, Field(min_length=1)], _Text] | None
_Age = Annotated[float, Field(ge=0, le=OLDEST_AGE)] | None
_Id = Annotated[_Text, BeforeValidator(lambda raw: str(raw) if type(raw) is int else raw)]
_Sex = Annotated[
    Literal["F", "M", "U"],
    BeforeValidator(lambda raw: _SEX_WORDS.get(raw.strip().upper(), raw) if isinstance(raw, str) else raw),
]


class CodeJson(BaseModel):
    model_config = STRICT
    system: Literal["ICD9", "ICD10"]
    code: Annotated[_Text, Field(pattern=r"\S")]

    @model_validator(mode="wrap")
    @classmethod
    def _text_or_object(cls, raw: Any, handler: Any, info: ValidationInfo) -> CodeJson | str:
        if isinstance(raw, str) and raw.strip():
            return _within_limit(raw, info)
        if not isinstance(raw, Mapping):
            raise ValueError(f'must be text such as "428.0" or {{"system": ..., "code": ...}}, not {shown(raw)}')
        return handler(raw)


class VisitJson(BaseModel):
    model_config = STRICT
    codes: list[CodeJson]
    time: Annotated[Any, _Short] = None
    age: _Age = None
    details: _Details = None


class HistoryJson(BaseModel):
    model_config = STRICT
    id: _Id | None = None
    sex: _Sex | None = None
    age: _Age = None
    details: _Details = None
    dates: Literal["shifted"] | None = None
    visits: list[VisitJson]
    title: Annotated[Any, _Short] = None  # these three of the demo patients: for people, never for the model
    story: Annotated[Any, _Short] = None
    invented: Any = None


def read_history(history: Mapping[str, Any], limits: Limits) -> HistoryJson:
    """A decoded history of the right shape; InputError names the place of the first mistake."""
    try:
        return HistoryJson.model_validate(history, context=limits)
    except ValidationError as error:
        raise InputError(sentence(error, HistoryJson)) from error
