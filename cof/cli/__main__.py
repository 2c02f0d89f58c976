"""`python -m cof.cli`."""

from cof.cli import main

main()
