"""One folder a publication: plan, runs, tables, figures."""
