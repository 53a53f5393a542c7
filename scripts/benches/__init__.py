"""What scripts/bench measures, one module a bench: a docstring and ``main(argv) -> int``.

Modules without a ``main`` are what benches share.
"""
