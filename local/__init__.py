"""AWS, the exchange and the bundled data on a laptop."""
