"""PBC-NAS: cells, networks and trainings in 3D."""
