"""`python -m benchmarks.zoo specs | costs | page`, in this order: see `benchmarks/README.md`."""

import argparse

from benchmarks.zoo import costs, page, specs

COMMANDS = {"specs": specs.write, "costs": costs.write, "page": page.write}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=COMMANDS)
    COMMANDS[parser.parse_args().what]()
