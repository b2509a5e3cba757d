"""The schema of a fault plan: which faults the exchange injects, how often, and with which seed.

A plan is a TOML file or the JSON body of `POST /admin/faults`: `seed`, optionally a `profile` ("realistic" or "brutal") to start from, and
a table for each kind, `[faults.partial_fill] rate = 0.1`. A kind that is not named never happens; an empty table takes the defaults below.
Promise: what cannot be used is a `FaultPlanError` of one line that names the key, its value and what is allowed. What each kind does to a
client is in docs/exchange.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, StringConstraints, ValidationError

from local.exchange.faults.models import OrderFault as OrderFault
from local.exchange.faults.models import PlanModel, Rate, Seconds, Symbols
from local.exchange.faults.models import RepeatedOrderFault as RepeatedOrderFault
from local.exchange.faults.models import RequestFault as RequestFault
from local.exchange.faults.stream_plan import (
    EventLate,
    EventLost,
    EventOutOfOrder,
    EventRepeated,
    StreamDisconnect,
    StreamLimits,
    StreamSilent,
)
from trading_env.errors import PapertapeError

StatusName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]{0,40}$")]


class FaultPlanError(PapertapeError, ValueError):
    """The plan cannot be used; the message is one line, fit to show to its author."""


# At the order's POST


class Post504Accepted(RepeatedOrderFault):
    rate: Rate = 0.01


class PostTimeoutAccepted(RepeatedOrderFault):
    """`hold_seconds` (wall clock): how long the connection is held when the client does not give up before."""

    rate: Rate = 0.01
    hold_seconds: Seconds = 30


class PostResetUnaccepted(RepeatedOrderFault):
    rate: Rate = 0.01


class PostGarbled(RepeatedOrderFault):
    rate: Rate = 0.005


# At any request, or any read


class TooManyRequests(RequestFault):
    """`with_reset`: whether the vendor's X-RateLimit headers come with it; without the key, with every other one."""

    rate: Rate = 0.02
    with_reset: bool | None = None


class RequestBudget(PlanModel):
    """`per_minute` requests in one minute of the exchange's clock, of trading and of market data each."""

    per_minute: Annotated[int, Field(ge=1)] = 200


class Get5xx(RequestFault):
    rate: Rate = 0.01


class GetTimeout(RequestFault):
    rate: Rate = 0.005
    hold_seconds: Seconds = 30


# In the book


class PartialFill(OrderFault):
    """`expires`: the share whose rest is never filled and ends at the close as `ends_as`; the others' rest is filled in one or two later
    steps, `seconds` (exchange clock) apart, each at a price that is worse by `drift_bps` basis points."""

    rate: Rate = 0.1
    seconds: Seconds = 60
    expires: Rate = 0.2
    ends_as: Literal["expired", "done_for_day", "canceled"] = "expired"
    drift_bps: Annotated[float, Field(ge=0, le=1_000)] = 2


class Overfill(OrderFault):
    """`share` of the order is filled on top, where cash or shares allow."""

    rate: Rate = 0.01
    share: Annotated[float, Field(gt=0, le=1)] = 0.1


class UnknownStatus(OrderFault):
    """The order shows `status`, and is not filled, for `seconds`."""

    rate: Rate = 0.02
    seconds: Seconds = 10
    status: StatusName = "under_review"


class WashTrade(RepeatedOrderFault):
    """`rate` of the orders that would trade against an open order of the other side; `false_positive_rate` of those that would not."""

    rate: Rate = 1
    false_positive_rate: Rate = 0


class InsufficientBuyingPower(RepeatedOrderFault):
    """Buys only."""

    rate: Rate = 0.005


class HaltedAsset(OrderFault):
    """`symbols` are halted always; without them, `rate` is the share of symbols and days."""

    rate: Rate = 0.002


class NotFractionable(PlanModel):
    symbols: Annotated[Symbols, Field(min_length=1)]


class VendorRounding(PlanModel):
    """Prices to four decimals, cash to cents."""


class AccountReset(PlanModel):
    """`revokes_keys`: as the vendor's does, so that from then on every request is a 401."""

    at: AwareDatetime
    revokes_keys: bool = False


# In what is shown


class ViewSkew(OrderFault):
    """Positions do not show a fill for `seconds`."""

    rate: Rate = 0.1
    seconds: Seconds = 5


class HiddenOrder(OrderFault):
    rate: Rate = 0.03
    seconds: Seconds = 5


class StaleOrderView(RepeatedOrderFault):
    """Reads of an order that changed in the last `seconds`."""

    rate: Rate = 0.05
    seconds: Seconds = 60


class Faults(PlanModel):
    post_504_accepted: Post504Accepted | None = None
    post_timeout_accepted: PostTimeoutAccepted | None = None
    post_reset_unaccepted: PostResetUnaccepted | None = None
    post_garbled: PostGarbled | None = None
    too_many_requests: TooManyRequests | None = None
    budget: RequestBudget | None = None
    get_5xx: Get5xx | None = None
    get_timeout: GetTimeout | None = None
    partial_fill: PartialFill | None = None
    overfill: Overfill | None = None
    unknown_status: UnknownStatus | None = None
    wash_trade: WashTrade | None = None
    insufficient_buying_power: InsufficientBuyingPower | None = None
    halted_asset: HaltedAsset | None = None
    not_fractionable: NotFractionable | None = None
    vendor_rounding: VendorRounding | None = None
    account_reset: AccountReset | None = None
    view_skew: ViewSkew | None = None
    hidden_order: HiddenOrder | None = None
    stale_order_view: StaleOrderView | None = None
    event_lost: EventLost | None = None
    event_repeated: EventRepeated | None = None
    event_late: EventLate | None = None
    event_out_of_order: EventOutOfOrder | None = None
    stream_silent: StreamSilent | None = None
    stream_disconnect: StreamDisconnect | None = None
    stream_limits: StreamLimits | None = None


KINDS = tuple(Faults.model_fields)


class FaultPlan(PlanModel):
    """A seed and the kinds that happen. `FaultPlan()` is none of them: the exchange as it is without a plan."""

    seed: int = 0
    faults: Faults = Faults()

    @classmethod
    def load(cls, path: Path) -> Self:
        """The plan in a TOML file. Raises `FaultPlanError`."""
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise FaultPlanError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise FaultPlanError(f"{path}: is not TOML: {error}") from error
        return cls.from_document(document, source=str(path))

    @classmethod
    def from_document(cls, document: Mapping[str, Any], *, source: str = "fault plan") -> Self:
        """The plan in a parsed document, whose own tables come on top of its `profile`'s. Raises `FaultPlanError`."""
        own = {key: value for key, value in document.items() if key != "profile"}
        profile = document.get("profile")
        if profile is not None:
            if profile not in PROFILES:
                raise FaultPlanError(f"{source}: profile must be one of {', '.join(PROFILES)}, was {profile!r}")
            own["faults"] = _over(PROFILES[profile], own.get("faults", {}))
        try:
            return cls.model_validate(own)
        except ValidationError as error:
            raise FaultPlanError("; ".join(_sentence(source, problem) for problem in error.errors())) from error

    @property
    def empty(self) -> bool:
        """Whether the plan injects nothing."""
        return all(getattr(self.faults, kind) is None for kind in KINDS)

    def document(self) -> dict[str, Any]:
        """The plan with every default spelled out; `from_document` gives the plan back."""
        return self.model_dump(mode="json", exclude_none=True)


def realistic(seed: int) -> FaultPlan:
    """The default rates: the vendor's own where it names one (partial fills), elsewhere such that a traded year meets every kind."""
    return FaultPlan.from_document({"seed": seed, "profile": "realistic"})


def brutal(seed: int) -> FaultPlan:
    """Far worse than the vendor has ever been."""
    return FaultPlan.from_document({"seed": seed, "profile": "brutal"})


# What needs a symbol or a moment, an overfill, which the vendor never does, and the streams' faults are in no profile.
IN_NO_PROFILE = {"overfill", "not_fractionable", "account_reset"} | {kind for kind in KINDS if kind.startswith(("event_", "stream_"))}
PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    "realistic": {
        **{kind: {} for kind in KINDS if kind not in IN_NO_PROFILE},
        "wash_trade": {"false_positive_rate": 0.002},
    },
    "brutal": {
        "post_504_accepted": {"rate": 0.1},
        "post_timeout_accepted": {"rate": 0.1},
        "post_reset_unaccepted": {"rate": 0.1},
        "post_garbled": {"rate": 0.05},
        "too_many_requests": {"rate": 0.1},
        "budget": {"per_minute": 20},
        "get_5xx": {"rate": 0.1},
        "get_timeout": {"rate": 0.03},
        "partial_fill": {"rate": 0.5, "expires": 0.4, "drift_bps": 10},
        "unknown_status": {"rate": 0.15, "seconds": 45},
        "wash_trade": {"false_positive_rate": 0.03},
        "insufficient_buying_power": {"rate": 0.05},
        "halted_asset": {"rate": 0.03},
        "vendor_rounding": {},
        "view_skew": {"rate": 0.5, "seconds": 20},
        "hidden_order": {"rate": 0.2, "seconds": 20},
        "stale_order_view": {"rate": 0.3, "seconds": 120},
    },
}


def _over(base: Mapping[str, Mapping[str, Any]], own: object) -> object:
    """The profile's tables with the plan's own keys on top; what is no table is left for the schema to refuse."""
    if not isinstance(own, Mapping):
        return own
    merged: dict[str, Any] = {kind: dict(table) for kind, table in base.items()}
    for kind, table in own.items():
        merged[kind] = {**merged.get(kind, {}), **table} if isinstance(table, Mapping) else table
    return merged


def _sentence(source: str, problem: object) -> str:
    assert isinstance(problem, dict)
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path) or "(document)"
    match problem["type"]:
        case "missing":
            return f"{source}: {key} is missing"
        case "extra_forbidden" if len(path) == 2:
            return f"{source}: {key} is not a kind of fault; the kinds are {', '.join(KINDS)}"
        case "extra_forbidden":
            return f"{source}: {key} = {problem['input']!r} is not a key; {_keys(path)}"
        case _:
            return f"{source}: {key} = {problem['input']!r} is not allowed: {problem['msg']}"


def _keys(path: list[str]) -> str:
    if len(path) == 1:
        return "the keys are seed, profile, faults"
    table = Faults.model_fields[path[1]].annotation
    (kind, _none) = table.__args__  # type: ignore[union-attr]
    return f"the keys of {path[1]} are {', '.join(kind.model_fields)}"
