"""Transforms: pure functions on lazy plans. `ls` of this folder is the catalogue.

Nothing here reads, writes or computes; nothing here knows Prefect, networks, disks or databases.
"""
