"""Searches of architectures, hyper-parameters and weights."""
