"""The back office that every Django service needs, as a set of installable apps."""

__version__ = "0.1.0.dev0"
