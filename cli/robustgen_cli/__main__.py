"""`python -m robustgen_cli`: the same as the console script."""

from robustgen_cli.main import main

if __name__ == "__main__":
    main()
