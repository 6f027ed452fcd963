"""What others wrote, checked against pydantic models: the first mistake becomes one sentence saying where and what is expected."""

from __future__ import annotations

from functools import wraps
from typing import Any, TypeVar, dataclass_transform, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from mera_core.common.errors import InputError, shortened, shown

STRICT = ConfigDict(extra="forbid", strict=True)
_EXPECTED = {
    "bool_type": "must be true or false",
    "dataclass_exact_type": "must be a {class_name}",
    "dict_type": "must be an object",
    "extra_forbidden": "is not a known key",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be {ge:g} or more",
    "int_type": "must be a whole number",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be {le:g} or less",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "model_type": "must be an object",
    "string_pattern_mismatch": "must not be empty",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
    "too_short": "must hold at least one",
    "tuple_type": "must be a list",
    "unexpected_keyword_argument": "is not a known name",
}
_BARE = {  # say all without the value
    "extra_forbidden", "missing", "string_pattern_mismatch", "string_too_short", "too_short", "unexpected_keyword_argument",
}  # fmt: skip
T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def checked(kind: type[T]) -> type[T]:
    """A frozen dataclass whose values must be of the types that its fields declare; raises InputError where they are not."""
    made: Any = dataclass(frozen=True, config=STRICT)(kind)
    plain = made.__init__

    @wraps(plain)
    def __init__(self, *values: Any, **named: Any) -> None:
        try:
            plain(self, *values, **named)
        except ValidationError as error:
            raise InputError(sentence(error)) from error

    made.__init__ = __init__
    return made


def as_tuple(value: Any) -> Any:
    """A list as a tuple, for a `BeforeValidator`: JSON and YAML know no tuples."""
    return tuple(value) if isinstance(value, list) else value


def sentence(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """The first mistake in words: its place, such as visits[0].age, what is expected and what stands there.

    model: whose known keys are named where one is unknown.
    """
    first = error.errors(include_url=False)[0]
    kind, context = first["type"], first.get("ctx", {})
    words = _EXPECTED[kind].format(**context).replace("'", "") if kind in _EXPECTED else first["msg"]
    if kind == "value_error":
        words = str(context["error"]).removesuffix(".")
    elif kind == "extra_forbidden" and model:
        words += f"; known are {', '.join(_model_at(model, first['loc'][:-1]).model_fields)}"
    elif kind in _EXPECTED and kind not in _BARE:
        words += f", not {shown(first['input'])}"
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{shortened(step)}" for step in first["loc"])
    place = place.removeprefix(".").replace(".[key]", " as a key")
    joint = "" if not place else " " if kind != "value_error" or words.startswith(("must ", "has ")) else ": "
    return f"{place}{joint}{words}."


def _model_at(kind: Any, place: tuple[int | str, ...]) -> type[BaseModel]:
    """The model of the object at a place within a model, through lists and alternatives."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return next(found for each in get_args(kind) if (found := _model_at(each, place)))
    names = [step for step in place if isinstance(step, str)]
    return _model_at(kind.model_fields[names[0]].annotation, tuple(names[1:])) if names else kind
