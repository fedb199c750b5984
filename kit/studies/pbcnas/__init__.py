"""PBC-NAS for 3D MedMNIST."""
