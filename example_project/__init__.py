"""The show flat: a small service that uses every app of the suite once."""
