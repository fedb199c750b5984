"""What the application does with a picture."""
