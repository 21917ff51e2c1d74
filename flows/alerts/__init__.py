"""Whom a run tells how it ended: one file, one channel."""
