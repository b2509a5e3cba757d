"""The broker is the truth: finishes batches, settles orders, takes the closing snapshot, notices what is missing."""
