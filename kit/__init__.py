"""Re-runs five publications on medical image classification and says which numbers hold."""

__version__ = "0.1.0"
