"""What an account keeps beside its money: configurations and watchlists."""
