"""`python -m rollkit`: the command line."""

from rollkit._cli import main

if __name__ == "__main__":
    raise SystemExit(main())
