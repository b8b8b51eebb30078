"""Drop-in modules: other packages' names and behaviour, on seawall's engine. Each is imported by its own name."""
