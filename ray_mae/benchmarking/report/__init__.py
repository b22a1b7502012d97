"""The tables and the page of a benchmark, from its stored rows alone."""
