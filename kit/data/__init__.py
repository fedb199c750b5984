"""Data: registered sets, images and volumes as arrays, copies, splits, batches."""
