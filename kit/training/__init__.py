"""Training: seeded, resumable, its losses and optimisers, and predictions afterwards."""
