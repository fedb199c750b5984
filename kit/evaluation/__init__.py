"""Numbers from arrays: metrics, intervals and tests, times."""
