"""Promises: what must hold before a load."""
