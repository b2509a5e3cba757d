"""The broker is the truth: finishes batches, asks about open orders, takes the closing snapshot, notices what is missing."""
