"""Pandera models of tables, one a file, that a pipeline may name with `schema:`."""
