"""The command line from a checkout: `python cli.py ACTION --spec SPEC [key=value ...]`. Installed: `oneformer`."""

from oneformer_jax.__main__ import main

if __name__ == "__main__":
    main()
