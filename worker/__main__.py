"""`python -m worker`: the same as the `worker` command."""

from worker.cli import main

# Job processes import the main module again when they start: it must do nothing there.
if __name__ == "__main__":
    main()
