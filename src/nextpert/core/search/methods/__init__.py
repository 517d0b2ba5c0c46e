"""The searches, one a file, named as the file is: see :mod:`nextpert.core.search.registry`."""
