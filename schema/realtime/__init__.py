"""What the runner says while the market is open: events for the functions, records for the stream, and that it is alive."""
