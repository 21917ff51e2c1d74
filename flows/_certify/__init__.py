"""Proving a pipeline idempotent: trials on a scratch copy, in processes that are really killed.

recording   the source's rows, read once and replayed in every trial
scratch     a target of the same kind beside the real one, which nobody else knows
seen        what a reader finds there, and what the system tables say
child       a run in a process of its own, which stops where it is told to
runs        starts such runs, kills them, and tells what became of them
trials      what is tried, and what held
"""
