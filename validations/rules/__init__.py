"""Quality rules: one file, one rule."""
