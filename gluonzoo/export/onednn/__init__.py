"""Networks run by oneDNN directly: algorithms and orders of values chosen, memory laid out once, nothing between two calls."""
