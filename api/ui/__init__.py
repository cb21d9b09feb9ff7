"""The dashboard: its files, and the session of a browser. What it shows, it asks at the addresses of everybody."""
