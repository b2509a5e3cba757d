"""AWS and the broker on a laptop: emulator, exchange, replay."""
