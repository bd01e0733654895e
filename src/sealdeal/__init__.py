"""Sealdeal: an open network where strangers make deals for confidential computation."""

__version__ = "0.1.0"
