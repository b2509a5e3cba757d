"""An Alpaca-compatible paper exchange over recorded bars and quotes, on a clock that is advanced from outside."""
