"""What an item of the ledger is: a frozen Pydantic model that knows its own key, with numbers that survive the round trip.

Money and quantities are `Decimal`; scores and weights are float64 and survive bit for bit, because DynamoDB keeps their shortest decimal
form. An item that cannot be read as what it says it is raises `LedgerCorrupt`, which is nobody's request's fault: the function fails, and
its alarm speaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from enum import StrEnum
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from trading_env.errors import PapertapeError

SCHEMA = 1

# DynamoDB keeps 38 significant digits and boto3 refuses more, so what exceeds them is rounded here, half to even.
_NUMBERS = Context(prec=38, rounding=ROUND_HALF_EVEN)


class LedgerCorrupt(PapertapeError, RuntimeError):  # noqa: N818 -- it names what happened
    """An item of the ledger cannot be read; the message names its key and its fields, never their values."""


def to_attribute(value: object) -> Any:
    """Turn a model's value into what DynamoDB stores: floats by their shortest decimal form; NaN and infinities are refused."""
    match value:
        case StrEnum():
            return value.value
        case bool() | None | str() | int() | bytes():
            return value
        case float() | Decimal():
            number = _NUMBERS.create_decimal(repr(value) if isinstance(value, float) else value)
            if not number.is_finite():
                raise ValueError(f"the ledger stores finite numbers only, was {value!r}")
            return number
        case Mapping():
            return {str(key): to_attribute(item) for key, item in value.items()}
        case list() | tuple():
            return [to_attribute(item) for item in value]
        case _:
            raise TypeError(f"the ledger cannot store {type(value).__name__}")


def plain(number: Decimal) -> str:
    """Every digit, without an exponent or trailing zeros."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


class Record(BaseModel):
    """One item. `keys` gives its primary key and, where it has one, its place in an index."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    kind: ClassVar[str]

    def keys(self) -> dict[str, str]:
        raise NotImplementedError

    def item(self) -> dict[str, Any]:
        """Return the item to put; absent values are left out."""
        body = {name: to_attribute(value) for name, value in self.model_dump(exclude_none=True).items()}
        return {**body, **self.keys(), "kind": self.kind, "schema": SCHEMA}

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Self:
        """Read an item; raise `LedgerCorrupt` if it is not one of this kind and of a schema that this code knows."""
        where = f"the ledger's item {item.get('pk')} / {item.get('sk')}"
        if (item.get("kind", cls.kind), item.get("schema", SCHEMA)) != (cls.kind, SCHEMA):
            raise LedgerCorrupt(f"{where} must be {cls.kind} of schema {SCHEMA}, was {item.get('kind')} of schema {item.get('schema')}")
        try:
            return cls.model_validate(dict(item))
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False))
            raise LedgerCorrupt(f"{where} cannot be read: {wrong}") from None
