"""`python -m memoturn` is the `memoturn` command."""

from memoturn.cli import main

if __name__ == "__main__":
    main()
