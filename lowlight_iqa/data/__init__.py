"""One reader per data set, each from the layout its authors distribute."""
