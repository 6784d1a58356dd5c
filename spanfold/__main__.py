"""`python -m spanfold` is the command `spanfold`."""

from spanfold.cli import main

main()
