"""The worker behind the training room, the simulation page and uploads: it does what one request of a run asks for, in the run's folder."""
