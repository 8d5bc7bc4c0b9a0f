"""Networks run by oneDNN directly: chosen algorithms and orders of values, memory laid out once, no operator between two calls."""
