"""The cache app."""
