"""An app of the project with tasks in it."""
