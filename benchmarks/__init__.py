"""How fast it is, and how near to the machine's limit: ``make bench``; README.md holds the table."""
