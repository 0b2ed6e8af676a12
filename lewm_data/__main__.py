"""``python -m lewm_data`` is the command ``lewm-data``."""

from lewm_data.cli.commands import main

if __name__ == "__main__":
    main()
