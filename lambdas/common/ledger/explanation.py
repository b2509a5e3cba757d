"""Why a model gave its scores, as `decide` records it: with a decision in the audit bucket, with a shadow's in the ledger.

Pure: the shape alone. `lambdas/decide/explaining.py` makes it, `lambdas/common/lake/explanation.py` reads it for a person.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

#: `gradient`: of a network; `rule`: its scores read nothing; `missing`: a network's that could not be had; `none`: nothing was scored.
Kind = Literal["gradient", "rule", "missing", "none"]


class Cause(BaseModel):
    """What an input did to a name's score. `gradient`: change of the score per standard deviation of the input over the training; `value`:
    the input's distance from its mean there, in the same unit; `contribution`: their product. The score is a logarithm of a share.
    """

    model_config = ConfigDict(frozen=True)
    input: str
    gradient: float
    value: float
    contribution: float


class Explanation(BaseModel):
    """Of one decision. `gradient` and `contribution` by name, in the order of `inputs`; `top` has the largest contributions, that first."""

    model_config = ConfigDict(frozen=True)
    kind: Kind
    says: str
    inputs: tuple[str, ...] = ()
    gradient: dict[str, tuple[float, ...]] = {}
    contribution: dict[str, tuple[float, ...]] = {}
    top: dict[str, tuple[Cause, ...]] = {}

    @property
    def brief(self) -> Explanation:
        """Without the tables: what is said, and the largest contributions."""
        return self.model_copy(update={"inputs": (), "gradient": {}, "contribution": {}})
