"""`python -m robust_nas`: the command line."""

from robust_nas.cli import main

if __name__ == "__main__":
    main()
