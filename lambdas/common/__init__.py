"""The edges that the functions share: lake, ledger, broker, execution API, environment, telemetry."""
