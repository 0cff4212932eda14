"""Extracting aspect terms from review sentences."""
