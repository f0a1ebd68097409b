"""`python -m probe_tui` is `probe-tui`."""

from probe_tui.cli import main

if __name__ == "__main__":
    main()
