"""`python -m sgdstudy`: the command, where it is not on the path."""

from sgdstudy.cli.start import main

main()
