"""What stands in a report: one file a section, each from `Facts` to a `Section`."""
