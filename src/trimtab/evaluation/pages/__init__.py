"""Tables, figures and groups to pages that open offline."""
