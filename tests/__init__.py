"""Tests; `tests.markets` builds the synthetic markets that several of them use."""
