"""The audit of the data sets."""
