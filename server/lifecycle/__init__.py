"""Lifecycle: rebuild, promote and roll back generations, change dictionaries, verify and mend."""
