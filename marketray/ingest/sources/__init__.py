"""One module per source of bars and articles."""
