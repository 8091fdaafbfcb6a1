"""What a run folder tells, drawn and written for people: figures, terminal tables, one self-contained page.

``runs`` reads folders, ``tables`` fills terminals and CSV files, ``figures`` draws, ``drawing`` saves what it
drew, ``page`` writes HTML. Only the last three import matplotlib.
"""
