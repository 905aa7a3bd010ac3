"""What a person may get wrong, case by case, and what the command line then says.

One table, run in two ways: the short way by pytest, in its own process (`test_table.py`); the whole
of it by `make bad-input`, each case as a process of its own (`tools/bad_input.py`).
"""
