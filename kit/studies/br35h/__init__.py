"""Transfer learning on Br35H."""
