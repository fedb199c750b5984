"""Augmentation: of batches, drawn from the seed, the epoch and the image alone."""
