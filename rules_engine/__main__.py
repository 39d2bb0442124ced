"""``python -m rules_engine`` is the command ``segments``."""

from rules_engine.cli.start import main

if __name__ == "__main__":
    main()
