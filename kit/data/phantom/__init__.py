"""Phantoms: MRI-like slices and volumes made from a real template, with lesions whose place is
known.
"""
