"""What people run and import: the command line, market data, research, reports, and the commands of an operator."""
