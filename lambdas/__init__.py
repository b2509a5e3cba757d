"""One folder a function; `common` holds the edges that they share."""
