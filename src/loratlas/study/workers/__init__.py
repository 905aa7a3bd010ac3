"""The processes that do the work of a run, and the one that watches over them."""
