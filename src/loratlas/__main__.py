"""What ``python -m loratlas`` runs: the command line."""

from loratlas.cli.main import main

if __name__ == "__main__":
    main()
