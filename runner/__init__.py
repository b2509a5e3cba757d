"""One long-lived process that follows the market: it reads the broker's streams and says what it sees. It decides and orders nothing."""
