"""Training recipes; only the command line imports from here."""
