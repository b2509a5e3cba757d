"""The trading domain: pure functions of market data and a portfolio, without AWS, network, files or a clock."""
