"""Orchestration: the only room that knows Prefect, networks, disks and databases."""
