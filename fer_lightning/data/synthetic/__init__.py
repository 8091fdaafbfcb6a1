"""Built-in synthetic faces, drawn from facial action units."""
