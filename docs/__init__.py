"""The guide by hand, and a reference that is made from the registries: ``python -m docs``."""
