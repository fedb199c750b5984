"""Re-runs five publications on medical image classification and says which numbers hold.

Whatever of the package is imported first, what TensorFlow and Keras read when they are imported is
set here: a silent start-up log, and the backend.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

__version__ = "0.1.0"
