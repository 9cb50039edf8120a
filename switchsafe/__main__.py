"""`python -m switchsafe`."""

from .cli import main

main()
