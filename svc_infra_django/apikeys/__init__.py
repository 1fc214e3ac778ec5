"""The apikeys app."""
