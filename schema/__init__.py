"""What the parts agree on: settings, slots, the API's bodies, the layout of the lake, trading rules, the file of an evaluation.

Knows Pydantic and `trading_env`.
"""
