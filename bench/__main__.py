"""``python -m bench [name …]``: measure, print every figure with its ratio, exit 1 when one is missed."""

from __future__ import annotations

import importlib
import sys

_BENCHES = ("parsing", "embedding", "gate", "ledger", "promotions", "loading", "search", "demo")


def main() -> int:
    chosen = sys.argv[1:] or list(_BENCHES)
    unknown = sorted(set(chosen) - set(_BENCHES))
    if unknown:
        print(f"no bench {unknown}; there is: {', '.join(_BENCHES)}", file=sys.stderr)
        return 2
    missed = 0
    print(f"{'figure':<48} {'measured':>12} {'unit':<9}    {'reference':<10} ratio")
    for name in chosen:
        for figure in importlib.import_module(f"bench.{name}").measure():
            print(figure.line(), flush=True)
            missed += not figure.holds
    print(f"{missed} missed" if missed else "every figure holds")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
