"""The six-model CAD framework."""
