"""`python -m supervisor`: the same as the `supervisor` command."""

from supervisor.cli import main

# Imported again by child processes that Python itself starts: it must do nothing there.
if __name__ == "__main__":
    main()
