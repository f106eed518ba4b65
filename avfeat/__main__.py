"""``python -m avfeat``: the same as the ``avfeat`` command."""

from avfeat.cli import main

if __name__ == "__main__":
    main()
