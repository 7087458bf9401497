"""Training recipes; nothing else of the package imports from here but the command line."""
