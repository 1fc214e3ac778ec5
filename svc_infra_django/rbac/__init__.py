"""The rbac app."""
