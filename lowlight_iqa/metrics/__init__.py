"""One file per metric; each registers itself and is found by the registry."""
