"""Artificial astrocytes: the thesis, chapter 4."""
