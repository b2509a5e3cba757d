"""What training and judging must share: the settings of the deployment, the trading rules that follow from them, the version of the code.

Settings are a JSON document or the name of a file that holds one, beside the scripts. Anything else raises `pydantic.ValidationError` or
`OSError` with what is wrong.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import trading_env
from settings import Settings
from trading_env.portfolio import Costs, Rules
from trading_env.risk import Limits

FOLDER = Path(__file__).resolve().parent


def read_settings(source: str) -> Settings:
    """Settings from JSON text, or from a file named relative to this folder."""
    text = source if source.lstrip().startswith("{") else (FOLDER / source).read_text(encoding="utf-8")
    return Settings.model_validate_json(text)


def rules_of(settings: Settings) -> Rules:
    """How orders are sized, filled and paid for, in training and in judging."""
    portfolio = settings.portfolio
    return Rules(
        cash_buffer=portfolio.cash_buffer,
        band=portfolio.band,
        min_notional=portfolio.min_notional,
        credit_dividends=portfolio.dividends == "credit",
        costs=Costs(**settings.costs.model_dump()),
        whole_shares=portfolio.whole_shares,
    )


def limits_of(settings: Settings) -> Limits:
    """The risk limits: what live trading refuses, training and judging refuse too."""
    return Limits(**settings.risk.model_dump())


def code_version() -> str:
    """sha256 over names and contents of these scripts and of `trading_env`, wherever they are unpacked."""
    domain = Path(str(trading_env.__file__)).parent
    files = {f"sagemaker/{path.name}": path for path in FOLDER.glob("*.py") if path.name not in ("pipeline.py", "settings.py")}
    files |= {f"trading_env/{path.relative_to(domain).as_posix()}": path for path in domain.rglob("*.py")}
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\n{hashlib.sha256(files[name].read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
