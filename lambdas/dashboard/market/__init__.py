"""What the lake says of the market: last quotes, and bars as charts want them."""
