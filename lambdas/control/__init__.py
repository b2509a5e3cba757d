"""The trading state and every read of the ledger; never waits for a batch, never speaks to the broker."""
