"""LeaSE on DARTS, P-DARTS and PC-DARTS."""
