"""DARTS, P-DARTS, PC-DARTS and LeaSE: supernets, searches, derived networks."""
