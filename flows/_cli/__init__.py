"""The verbs of the command line: one file, one verb; files with an underscore are what they share."""
