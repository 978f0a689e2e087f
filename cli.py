"""The command line: `python cli.py ACTION --spec SPEC [key=value ...]`."""

from oneformer_jax.actions.command_line import app

if __name__ == "__main__":
    app()
