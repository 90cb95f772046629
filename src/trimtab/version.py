"""The version of trimtab, in a module that imports nothing: cards are stamped with it in every room."""

__version__ = "0.1.0"
