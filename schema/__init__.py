"""What the parts agree on: settings, the layout of the lake, trading rules, the file of an evaluation. Knows Pydantic and `trading_env`."""
